"""A sampler's times stay on the CPU; everything else must follow the samples' device.

The meta device has no numbers, yet refuses to mix with tensors of another device as a GPU does.
"""

import pytest
import torch
from exact import Wavy
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import ClassifierFree, Static
from diffusion.noise import SeededNoise
from diffusion.objective import MinSNR, Simple, VariationalBound, VLoss
from diffusion.parameterization import Mean, MeanShift, V
from diffusion.process import Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM


def on_meta(channels, parameterization):
    denoiser = NetworkDenoiser(Wavy(channels), Linear(), parameterization).to("meta")
    label = torch.zeros(3, dtype=torch.long, device="meta")
    return denoiser, torch.zeros(3, 1, 4, device="meta"), Condition({"label": label}, {"label": 1})


def test_meta_refuses_a_mix():
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device="meta") + torch.zeros(3)


@pytest.mark.parametrize("parameterization", [V(), Mean(), MeanShift()])
@pytest.mark.parametrize("step", [DDIM(), DDIM(0.5), DDPM("large"), DDPM("learned")])
def test_sampling(step, parameterization):
    denoiser, x, cond = on_meta(2, parameterization)
    guidance = [ClassifierFree(2.0, interval=(100, 900), rescale=0.7), Static()]
    sampler = Sampler(step, 5, guidance)
    assert sampler(denoiser, denoiser.process, x, cond).is_meta
    assert sampler.encode(denoiser, denoiser.process, x, cond).is_meta


@pytest.mark.parametrize("parameterization", [V(), Mean(), MeanShift()])
@pytest.mark.parametrize("objective", [Simple(), MinSNR(), VLoss(), VariationalBound("learned")])
def test_training(objective, parameterization):
    denoiser, x, cond = on_meta(2, parameterization)
    t, eps = objective.draw(denoiser.process, x, SeededNoise(0, range(3), "meta"))
    loss: Tensor = objective(denoiser, x, cond, t, eps)
    assert loss.is_meta
    assert loss.shape == (3,)
    loss.sum().backward()
