"""Of several samples the nearest to a condition, against what is known of normal ones."""

import math

import pytest
import torch
from exact import Gaussian

from diffusion.candidates import Candidates
from diffusion.condition import Condition
from diffusion.noise import SeededNoise
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM

PROCESS = Cosine(50)
NORMAL = Gaussian(PROCESS, mean=0.0, std=1.0)  # whose samples have exactly its distribution


def drawn(sampler, numbers, c):
    noise = SeededNoise(0, numbers)
    return sampler(NORMAL, PROCESS, noise.normal((2,)), Condition({"c": c}), noise)


def test_the_nearer_of_two_has_the_mean_that_it_must_have():
    """The angle is uniform and the length apart from it, so E[x·c] = E[max cos] E[r], 4/π² E[r]."""
    c, n = torch.tensor([3.0, 0.0]), 20_000
    x = drawn(Candidates(2, "c", step=DDIM(), steps=2), range(n), c.expand(n, 2))
    length = x.norm(dim=1).mean()
    assert abs(x[:, 0].mean() / length - 4 / math.pi**2) < 4 / n**0.5
    assert abs(x[:, 1].mean()) < 4 / n**0.5
    alone = drawn(Sampler(DDIM(), 2), range(n), c.expand(n, 2))
    assert abs(alone[:, 0].mean()) < 4 / n**0.5
    assert abs(alone.norm(dim=1).mean() - length) < 4 / n**0.5  # not the longer one


@pytest.mark.parametrize("step", [DDIM(), DDPM()])
def test_one_of_them_is_the_sample_without_it_and_none_depends_on_the_batch(step):
    c = torch.randn(6, 2)
    best = drawn(Candidates(3, "c", step=step, steps=5), range(6), c)
    first = drawn(Sampler(DDIM(), 5), range(6), c)
    same = (drawn(Candidates(3, "c", step=DDIM(), steps=5), range(6), c) == first).all(1)
    assert 0 < same.sum() < 6  # the first of three candidates has the sample's own x_T
    for i in range(6):
        alone = drawn(Candidates(3, "c", step=step, steps=5), [i], c[i : i + 1])
        assert torch.equal(alone[0], best[i])


def test_the_moments_are_a_samplers():
    sampler = Candidates(2, "c", step=DDIM(), steps=4)
    c, noise = torch.randn(3, 2), SeededNoise(0, range(3))
    moments = list(
        sampler.trajectory(NORMAL, PROCESS, torch.randn(3, 2), Condition({"c": c}), noise)
    )
    assert len(moments) + 1 == len(sampler.times(PROCESS))
    assert all(x.shape == (3, 2) for x in moments)


@pytest.mark.parametrize("values", [{}, {"c": torch.zeros(3, 5)}])
def test_what_is_not_of_the_samples_size_is_refused(values):
    sampler = Candidates(2, "c", step=DDIM(), steps=2)
    with pytest.raises(
        ValueError, match=r"sampler\.near: c; expected a condition of shape \(3, 2\)"
    ):
        sampler(NORMAL, PROCESS, torch.randn(3, 2), Condition(values))
    with pytest.raises(ValueError, match=r"sampler\.n: 0; expected at least 1"):
        Candidates(0, "c", step=DDIM())
