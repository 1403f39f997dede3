"""A CLIP's embeddings of pictures: their scale, when the tower works, and whose they are."""

import pytest
import torch
from captioned import Captioned, SmallClip, SmallClipImage

from diffusion.common.pixels import scaled
from diffusion.networks import MLP
from diffusion.objective import Simple
from diffusion.parameterization import X0
from diffusion.pipeline import trainer
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.embeddings.clip_image import FrozenClipImage

D = 12


@pytest.fixture
def pictures():
    return scaled(torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8))


def counted(codec):
    """How many pictures went through the tower, one number a call."""
    calls = []
    codec.tower.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    return calls


def test_z_is_the_unit_vector_times_the_root_of_its_size(pictures):
    clip = SmallClip()
    z = FrozenClipImage(clip).encode(pictures)
    torch.testing.assert_close(z, D**0.5 * clip.embed_image(pictures))
    torch.testing.assert_close(z.square().mean(1), torch.ones(7))


def test_the_tower_sees_a_picture_once(pictures):
    codec = SmallClipImage()
    calls, z = counted(codec), codec.encode(pictures)
    assert torch.equal(codec.encode(pictures[[3, 3, 0]]), z[[3, 3, 0]])
    assert calls == [7]
    near = pictures + 1e-3  # rounds to the same levels
    assert torch.equal(codec.encode(near), z)
    codec.encode(-pictures[:2])
    assert calls == [7, 2]


def model(codec):
    parts = (Cosine(20), X0(), Simple(), Sampler(DDIM(), 3))
    return Diffusion(MLP(D, 8, 1), *parts, codec=codec)


def test_training_evaluates_no_tower_once_the_pictures_are_remembered(tmp_path):
    found = []
    for _ in range(2):
        codec = SmallClipImage()
        calls, system = counted(codec), model(codec)
        system.cache = tmp_path
        data = Captioned(copies=2, batch_size=6)
        trainer(None, max_steps=3, accelerator="cpu", limit_val_batches=1).fit(system, data)
        found.append(sum(calls))
        x = next(data.batches("train"))["image"]
    assert found == [24, 0]  # training and validation, then the file's
    torch.testing.assert_close(codec.encode(x), SmallClipImage().encode(x))
    assert system.shape == system.diffused == (D,)


def test_another_clip_is_refused(tmp_path, pictures):
    system = model(SmallClipImage())
    fitting = trainer(None, max_steps=1, accelerator="cpu", limit_val_batches=0)
    fitting.fit(system, Captioned(copies=1, batch_size=6))
    path = tmp_path / "prior.ckpt"
    fitting.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert [saved[k].numel() for k in saved if k.startswith("codec")] == [0]  # no weights

    def again(seed):
        parts = (Cosine(20), X0(), Simple(), Sampler(DDIM(), 3))
        names = ("network", "process", "parameterization", "objective", "sampler")
        given = dict(zip(names, (MLP(D, 8, 1), *parts)), codec=SmallClipImage(seed=seed))
        return Diffusion.load_from_checkpoint(path, **given)

    assert torch.equal(again(0).codec.encode(pictures), system.codec.encode(pictures))
    with pytest.raises(ValueError, match=r"ckpt was trained with base_\w+ as model\.codec"):
        again(1)


def test_what_does_not_fit_is_refused():
    clip = SmallClip()
    data = DataSpec("Large", (3, 16, 16))
    with pytest.raises(
        ValueError, match=r"codec\.checkpoint: of pictures of shape \(3, 8, 8\); expected"
    ):
        FrozenClipImage(clip).spec(data)
    clip.clean = False
    with pytest.raises(ValueError, match=r"codec\.checkpoint: a CLIP of noisy pictures; expected"):
        FrozenClipImage(clip)
