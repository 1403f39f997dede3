"""UniPC's weights, against the integral that they approximate."""

from itertools import pairwise

import pytest
import torch
from exact import PROCESSES, process

from diffusion.denoiser import Prediction
from diffusion.step import UniPC


def log_ratio(it, t):
    return it.alpha[t].log() - it.sigma[t].log()


def integral(it, t, s, a, b, c):
    """∫ e^λ (a + b λ + c λ²) dλ from λ_t to λ_s, by parts."""

    def at(lam):
        return lam.exp() * (a - b + 2 * c + (b - 2 * c) * lam + c * lam**2)

    return at(log_ratio(it, s)) - at(log_ratio(it, t))


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_three_points_integrate_a_parabola(of, variant):
    """x_s / σ_s = x_t / σ_t + ∫ e^λ x̂_0 dλ, for x̂_0 that is quadratic in λ and for any B(h)."""
    it, (a, b, c) = process(of, 100), (0.3, -0.7, 0.4)

    def denoise(x_t, t):
        lam = log_ratio(it, t)
        x_0 = (a + b * lam + c * lam**2).expand(x_t.shape)
        return Prediction(x_t, x_0, *it.scales(t, x_t))

    x, step = torch.randn(3, 1, dtype=torch.float64), UniPC(3, variant, corrector=False).begin()
    for i, (t, s) in enumerate(pairwise(torch.tensor([90, 72, 60, 31, 4, 1]))):
        exact = it.sigma[s] * (x / it.sigma[t] + integral(it, t, s, a, b, c))
        x = step(denoise, it, x, t, s, torch.randn_like)
        error = (x - exact).abs().max()
        assert error < 1e-9 if i >= 2 else error > 1e-5, i
