import pytest
import torch

from diffusion.condition import Condition
from diffusion.data import FashionMNIST, Images, Memory
from diffusion.data.reading.order import Shuffled
from diffusion.networks import Mirrored, UNet
from diffusion.noise import SeededNoise
from diffusion.objective import Simple
from diffusion.parameterization import X0
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.checks import check_told
from diffusion.systems.diffusion import Diffusion

SMALL = {"image_size": 8, "in_channels": 1, "channels": 16, "multipliers": [1], "attention": []}


def halves(n=64):
    """Pictures whose left half is white."""
    images = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    images[..., :4] = 255
    return images


def test_the_batch_says_which_pictures_were_mirrored():
    batch = Shuffled(Memory(halves()), seed=1, flip=True).__getitems__(range(64))
    right = batch["image"][:, 0, 0, 7] == 255
    assert batch["mirrored"].bool().equal(right)
    assert 16 < right.sum() < 48
    assert "mirrored" not in Shuffled(Memory(halves()), 1, False).__getitems__(range(4))


def test_the_channel_is_what_is_told_and_0_where_nothing_is():
    x_t, told = torch.randn(2, 3, 5, 4), torch.tensor([1.0, 0.0])
    one = Mirrored()
    planes = one.planes(x_t, {"mirrored": told})
    assert planes.equal(torch.stack([torch.ones(1, 5, 4), torch.zeros(1, 5, 4)]))
    assert one.planes(x_t, {}).equal(torch.zeros(2, 1, 5, 4))


@pytest.mark.parametrize("told", [True, False])
def test_what_is_told_of_mirror_images_draws_none(told):
    """Without, E[x_0] is grey at first, and pictures are white to either side."""
    torch.manual_seed(0)
    network = UNet(**SMALL, blocks=1, num_classes=2, inputs=[Mirrored()] if told else [])
    model = Diffusion(network, Cosine(50), X0(), Simple(), Sampler(DDIM(), 10), p_uncond=0.1 * told)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    pictures = Shuffled(Memory(halves()), seed=1, flip=True)
    for step in range(120):
        batch = pictures.__getitems__(range(64 * step, 64 * step + 64))
        x_0 = batch["image"].float() / 127.5 - 1
        cond = model.network_condition(batch)
        assert cond.values.keys() == ({"mirrored"} if told else set())
        t, eps = model.objective.draw(model.process, x_0, SeededNoise(step, range(64)))
        optimizer.zero_grad()
        model.objective(model.denoiser, x_0, cond, t, eps).mean().backward()
        optimizer.step()
    noise = SeededNoise(0, range(64))
    with torch.no_grad():
        model.eval()
        x_T = noise.normal((1, 8, 8))
        drawn = model.sampler(model.denoiser, model.process, x_T, Condition(), noise)
    mirrored = (drawn[..., 4:].mean((1, 2, 3)) > drawn[..., :4].mean((1, 2, 3))).float().mean()
    assert mirrored == 0 if told else 0.2 < mirrored < 0.8


def test_data_without_mirror_images_is_refused():
    data: Images = FashionMNIST(flip=False)
    with pytest.raises(ValueError, match=r"data\.flip: false; expected true"):
        check_told(("label", "mirrored"), data)
    check_told(("label",), data)
    check_told(None, data)
