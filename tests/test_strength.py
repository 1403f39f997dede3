"""Editing a picture by adding noise to it and taking the noise away again (SDEdit)."""

import math

import pytest
import torch
from exact import Gaussian, Mixture, process

from diffusion.condition import Condition
from diffusion.process import Cosine, Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver, UniPC

SPACINGS = ["trailing", "leading", "linspace", "quadratic", "karras", "log_snr"]


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def picture(n, value=0.1):
    return Condition({"known": torch.full((n, 1), value, dtype=torch.float64)})


@pytest.mark.parametrize("step", [DDIM(), DDPM(), UniPC()], ids=lambda s: type(s).__name__)
def test_at_one_nothing_changes_and_no_picture_is_looked_at(step):
    it, x_T = Cosine(), torch.randn(6, 1, dtype=torch.float64)
    data = Gaussian(it)
    plain = list(Sampler(step, 7).trajectory(data, it, x_T, randn_like=seeded()))
    full = Sampler(step, 7, strength=1.0)
    for cond in (None, Condition({"known": torch.full_like(x_T, torch.nan)})):
        for x, other in zip(plain, full.trajectory(data, it, x_T, cond, seeded()), strict=True):
            assert torch.equal(x, other)
    assert full.needs == frozenset()


@pytest.mark.parametrize("strength", [0.0, 0.0004])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_at_zero_the_picture_comes_back(strength, spacing):
    it, x_T = Linear(), torch.randn(6, 1, dtype=torch.float64)
    sampler = Sampler(DDPM(), 10, spacing=spacing, strength=strength)
    assert sampler.times(it).tolist() == [0]
    assert torch.equal(sampler(Gaussian(it), it, x_T, picture(6)), picture(6).values["known"])


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("strength", [0.29, 0.5, 0.777, 0.99])
def test_it_goes_down_the_grid_from_strength_times_T(spacing, strength):
    it = Cosine(1000)
    whole = Sampler(DDIM(), 20, spacing=spacing).times(it).tolist()
    first, *rest = Sampler(DDIM(), 20, spacing=spacing, strength=strength).times(it).tolist()
    assert first == min(round(1000 * strength), whole[0])
    assert rest == [t for t in whole if t < first]


def test_it_starts_from_the_picture_with_noise():
    it, x_T = Linear(), torch.randn(6, 1, dtype=torch.float64)
    sampler = Sampler(DDIM(), 10, strength=0.35)
    expected = it.alpha[350] * 0.1 + it.sigma[350] * x_T
    torch.testing.assert_close(sampler.start(it, x_T, picture(6)), expected)
    assert sampler.needs == {"known"}


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("step", [DDIM(), DPMSolver()], ids=lambda s: type(s).__name__)
def test_edited_pictures_of_gaussian_data_are_known(strength, step):
    """The ODE keeps a sample's z-score, so x_0 = m + c z_τ with x_τ = α_τ known + σ_τ ε."""
    it = process(Cosine, 1000)
    data, x_T = (
        Gaussian(it, mean=0.7, std=0.3),
        torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None],
    )
    x = Sampler(step, 1000, strength=strength)(data, it, x_T, picture(9, -0.5))
    tau = round(1000 * strength)
    mean, std = data.marginal(tau)
    x_tau = it.alpha[tau] * -0.5 + it.sigma[tau] * x_T
    exact = 0.7 + 0.3 * (x_tau - mean) / std
    assert (x - exact).abs().max() < 0.02
    # The more strength, the less of the picture: the mean moves from it to the data's.
    share = (x.mean().item() + 0.5) / 1.2
    assert share == pytest.approx(1 - it.alpha[tau].item() * 0.3 / std, abs=0.01)


@pytest.mark.parametrize("strength", [0.3, 0.6, 0.9])
def test_ancestral_edits_are_samples_of_the_posterior(strength):
    """DDPM from q(x_τ | known) draws x_0 ~ p(x_0 | x_τ): known's class with known odds."""
    it, n = process(Cosine, 1000), 4000
    means = torch.tensor([[-0.6], [0.6]], dtype=torch.float64)
    data = Mixture(it, means, 0.0)
    x_T = seeded(0)(torch.empty(n, 1, dtype=torch.float64))
    sampler = Sampler(DDPM(), 250, strength=strength)
    x = sampler(data, it, x_T, picture(n, 0.6), seeded())
    tau = round(1000 * strength)
    alpha, sigma = it.alpha[tau], it.sigma[tau]
    x_tau = alpha * 0.6 + sigma * x_T
    exact = torch.sigmoid(2 * alpha * 0.6 * x_tau / sigma**2).mean()
    assert abs((x > 0).double().mean() - exact) < 4 * 0.5 / n**0.5 + 0.01


def test_a_picture_is_missing():
    it = Cosine()
    with pytest.raises(ValueError, match=r"sampler.strength: 0.5; expected 1, or a picture"):
        Sampler(DDIM(), 5, strength=0.5)(Gaussian(it), it, torch.randn(2, 1))


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strength_is_a_share(strength):
    with pytest.raises(ValueError, match=r"sampler.strength: .*; expected 0 … 1"):
        Sampler(DDIM(), 5, strength=strength)
