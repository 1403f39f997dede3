"""Heun's method against EDM's algorithm 2 as the paper writes it, in x/α and σ/α."""

import math
from itertools import pairwise

import pytest
import torch
from exact import PROCESSES, Gaussian, Mixture, process

from diffusion.process import Cosine, Linear, RectifiedFlow, ScaledLinear
from diffusion.sampler import Sampler
from diffusion.step import DDIM, Heun

POINTS = torch.tensor([[-0.8, -0.5], [0.6, 0.7], [0.5, -0.6]], dtype=torch.float64)


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def edm(data, times, x, gamma, s_min, s_max, s_noise, randn_like):
    """Karras et al. 2022, algorithm 2, with t̂ rounded up to a time of the table."""
    alpha, u = data.process.alpha, data.process.sigma / data.process.alpha
    last = int((alpha > 0).nonzero().max())

    def D(y, t):
        return data(alpha[t] * y, torch.tensor(t)).x_0

    grid = times.tolist()
    y = x / alpha[grid[0]]
    for t, s in pairwise(grid):
        later = t
        if gamma > 0 and s_min <= u[t] <= s_max:
            while later < last and u[later] < (1 + gamma) * u[t]:
                later += 1
        if later > t:
            y = y + (u[later] ** 2 - u[t] ** 2).sqrt() * s_noise * randn_like(y)
        d = (y - D(y, later)) / u[later]
        euler = y + (u[s] - u[later]) * d
        if s > 0:
            euler = y + (u[s] - u[later]) * (d + (euler - D(euler, s)) / u[s]) / 2
        y = euler
        yield y * alpha[s]


@pytest.mark.parametrize("it", [ScaledLinear(), Linear(), Cosine(), RectifiedFlow()])
@pytest.mark.parametrize(
    ("churn", "s_min", "s_max", "s_noise"),
    [(0.0, 0.0, math.inf, 1.0), (0.1, 0.0, 1.0, 1.0), (0.41, 0.05, 50.0, 1.007)],
)
def test_heun_is_edms_algorithm(it, churn, s_min, s_max, s_noise):
    data = Mixture(it, POINTS, 0.2)
    times = Sampler(DDIM(), 18, spacing="karras").times(it)[3:]  # σ/α < 50, raised too below 80
    x = torch.randn(6, 2, dtype=torch.float64)
    expected = edm(data, times, x, churn, s_min, s_max, s_noise, seeded())
    step, randn_like = Heun(churn, s_min, s_max, s_noise), seeded()
    for (t, s), theirs in zip(pairwise(times), expected, strict=True):
        x = step(data, it, x, t, s, randn_like)
        torch.testing.assert_close(x, theirs, rtol=1e-8, atol=1e-8)
    assert s == 0


@pytest.mark.parametrize("of", PROCESSES)
def test_eulers_step_is_ddims(of):
    """The point where the second evaluation is made, and the step where there is none."""
    it, x = process(of, 100), torch.randn(4, 2, dtype=torch.float64)
    data, asked = Mixture(it, POINTS, 0.2), []

    def denoise(x_t, t):
        asked.append(x_t)
        return data(x_t, t)

    for t, s in ((80, 40), (30, 1), (30, 0), (100, 60)):
        t, s = torch.tensor(t), torch.tensor(s)
        asked.clear()
        ours = Heun()(denoise, it, x, t, s, torch.randn_like)
        ddim = DDIM()(data, it, x, t, s, torch.randn_like)
        torch.testing.assert_close(asked[1] if len(asked) > 1 else ours, ddim)
        assert len(asked) == 1 + bool(s > 0 and it.sigma[t] <= 80 * it.alpha[t])


def test_churn_keeps_the_marginals():
    """With many steps, and where at the ends of the table there is nothing to raise to."""
    for it in (Linear(), RectifiedFlow()):
        data, n = Gaussian(it, 0.6, 0.4), 20_000
        x_T = torch.randn(n, 1, dtype=torch.float64)
        x_0 = Sampler(Heun(churn=0.1), 60, spacing="karras")(data, it, x_T, randn_like=seeded())
        assert abs(x_0.mean() - 0.6) < 4 * 0.4 / n**0.5 + 0.003
        assert abs(x_0.std() / 0.4 - 1) < 4 / (2 * n) ** 0.5 + 0.01


def test_churn_forgets_the_start():
    """Noise is really replaced: without churn x_T determines x_0, with much of it hardly."""
    it = ScaledLinear()
    data, x_T = Gaussian(it, 0.0, 0.4), torch.randn(2000, 1, dtype=torch.float64)
    kept = []
    for churn in (0.0, 0.05, 0.4):
        x_0 = Sampler(Heun(churn), 40, spacing="karras")(data, it, x_T, randn_like=seeded())
        kept.append(torch.corrcoef(torch.cat([x_T, x_0], 1).T)[0, 1].item())
    assert kept[0] > 0.9999
    assert kept[0] > kept[1] + 0.05 > kept[2] + 0.1, kept
