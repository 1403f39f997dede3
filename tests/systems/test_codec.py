import lightning as L
import pytest
import torch
from torch import nn

from diffusion.callbacks.likelihood import Likelihood
from diffusion.callbacks.samples import SamplePictures
from diffusion.codec import Codec
from diffusion.data import Digits
from diffusion.networks import MLP, UNet
from diffusion.objective import Simple
from diffusion.parameterization import V
from diffusion.pipeline import trainer
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion


class Patches(Codec):
    """2×2 patches of one channel, as four channels, rotated by a fixed orthogonal matrix."""

    def __init__(self):
        super().__init__()
        made = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("matrix", made[0])

    def encode(self, x):
        return torch.einsum("ij,bjhw->bihw", self.matrix, nn.functional.pixel_unshuffle(x, 2))

    def decode(self, z):
        return nn.functional.pixel_shuffle(torch.einsum("ij,bihw->bjhw", self.matrix, z), 2)

    def spec(self, data):
        channels, height, width = data.shape
        return DataSpec(
            None, (4 * channels, height // 2, width // 2), data.num_classes, levels=None
        )


class Means(Codec):
    """The means of the four quarters of a picture, which do not lead back."""

    decodes = False

    def encode(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)

    def spec(self, data):
        return DataSpec(None, (4,), data.num_classes, levels=None)


def model(network, codec):
    return Diffusion(network, Cosine(T=20), V(), Simple(), Sampler(DDIM(), 3), codec=codec)


def test_what_is_drawn_is_decoded(tmp_path):
    codec, x = Patches(), torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(codec.decode(codec.encode(x)), x)
    network = UNet(4, in_channels=4, channels=8, multipliers=[1], attention=[], blocks=1, groups=4)
    system = model(network, codec)
    fitting = trainer(
        None, max_steps=2, accelerator="cpu", limit_val_batches=1, val_check_interval=2
    )
    fitting.fit(system, Digits(batch_size=8))
    assert (system.shape, system.diffused) == ((1, 8, 8), (4, 4, 4))
    drawn = system.generate({}, [0, 1])
    *_, z = system.trajectory({}, [0, 1])
    assert torch.equal(drawn, codec.decode(z))
    start = next(iter(system.trajectory({}, [0])))
    assert start.shape == (1, 4, 4, 4)
    assert "codec.matrix" in system.state_dict()
    assert SamplePictures(columns=2)._draw(fitting, system).x_0.shape[1:] == (1, 8, 8)
    with pytest.raises(ValueError, match="likelihood: Patches is what is diffused; expected Pix"):
        Likelihood(n=2).setup(fitting, system, "test")


def test_what_cannot_be_decoded_is_drawn_as_it_is(tmp_path):
    system = model(MLP(dim=4, width=8, depth=1), Means())
    fitting = trainer(None, max_steps=1, accelerator="cpu", limit_val_batches=0)
    fitting.fit(system, Digits(batch_size=8))
    assert system.shape == system.diffused == (4,)
    assert system.generate({}, [0, 1]).shape == (2, 4)
    with pytest.raises(ValueError, match="codec: Means only encodes; expected one that decodes"):
        system.codec.decode(torch.zeros(1, 4))
    run = L.Trainer(default_root_dir=tmp_path, logger=False, callbacks=[SamplePictures()])
    SamplePictures().on_test_epoch_end(run, system)  # of vectors there is no picture
    assert not (tmp_path / "samples.png").exists()
