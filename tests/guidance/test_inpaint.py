import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diffusion.condition import Condition
from diffusion.denoiser import Prediction
from diffusion.guidance import ClassifierFree, Inpaint, Static
from diffusion.process import Cosine, Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver, Heun, RePaint, UniPC

MEAN = torch.tensor([0.2, -0.1], dtype=torch.float64)
STEPS = [DDIM(), DDIM(0.5), DDPM("large"), DPMSolver(), Heun(), UniPC(), RePaint(DDPM(), 3)]


class Pair:
    """Two pixels, x_0 ~ N(MEAN, ¼ [[1, ρ], [ρ, 1]]), and their exact denoiser."""

    def __init__(self, process, rho):
        self.process, self.rho = process, rho
        self.cov = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64) / 4

    def gain(self, t):
        """K of E[x_0 | x_t] = m + K (x_t − α m)."""
        alpha, sigma = self.process.alpha[t], self.process.sigma[t]
        noise = sigma**2 * torch.eye(2, dtype=torch.float64)
        return alpha * self.cov @ torch.linalg.inv(alpha**2 * self.cov + noise)

    def __call__(self, x_t, t, cond=None):
        alpha, sigma = self.process.scales(t, x_t)
        away = x_t.reshape(-1, 2) - alpha * MEAN
        x_0 = (MEAN + away @ self.gain(t).T).reshape(x_t.shape)
        return Prediction(x_t, x_0, alpha, sigma)


def asked(n, known=0.9):
    """The first pixel is known, the second is not; images (n, 1, 1, 2)."""
    image = torch.tensor([known, 5.0], dtype=torch.float64).expand(n, 1, 1, 2)
    return Condition({"known": image, "mask": torch.tensor([1.0, 0.0]).expand(n, 1, 1, 2)})


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def noise(n):
    return seeded(0)(torch.empty(n, 1, 1, 2, dtype=torch.float64))


def moments(pair, times, repeats):
    """Mean and covariance of x_0, by walking the (linear) ancestral step with matrices.

    Of the first pixel x̂_0 is the known value, of the second it is the exact estimate.
    """
    it = pair.process
    mean, cov = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for t, s in pairwise(times.tolist()):
        ratio = it.alpha[t] / it.alpha[s]
        forward = it.sigma[t] ** 2 - ratio**2 * it.sigma[s] ** 2
        a = it.alpha[s] * forward / it.sigma[t] ** 2
        b, beta = ratio * it.sigma[s] ** 2 / it.sigma[t] ** 2, forward * it.sigma[s] ** 2
        beta = beta / it.sigma[t] ** 2
        gain = pair.gain(t).clone()
        gain[0] = 0
        rest = MEAN - gain @ (it.alpha[t] * MEAN)
        rest[0] = 0.9
        A = a * gain + b * torch.eye(2, dtype=torch.float64)
        for again in range(repeats if s else 1):
            if again:
                mean, cov = ratio * mean, ratio**2 * cov + forward * torch.eye(2)
            mean, cov = A @ mean + a * rest, A @ cov @ A.T + beta * torch.eye(2)
    return mean, cov


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("of", [Linear, Cosine])
def test_what_is_known_comes_out_as_it_was(step, of):
    sampler = Sampler(step, 20, [Static(), Inpaint()])
    x = sampler(Pair(of(), 0.9), of(), noise(50), asked(50), seeded())
    assert (x[..., 0] - 0.9).abs().max() < 1e-12
    assert x[..., 1].std() > 0.1


EXACT = {
    "ddim": DDIM(),
    "ddim, half the noise": DDIM(0.5, "large"),
    "ddim, too much noise": DDIM(1.5),
    "ddpm": DDPM(),
    "ddpm, large": DDPM("large"),
    "ddpm, learned": DDPM("learned"),
    "dpm solver": DPMSolver(),
    "dpm solver of the sde": DPMSolver(eta=1.0),
    "heun": Heun(churn=0.3),
    "unipc": UniPC(),
    "repaint": RePaint(DDPM(), 3),
    "repaint, large": RePaint(DDPM("large"), 3),
}


@pytest.mark.parametrize("within", [False, True], ids=["", "within classifier-free guidance"])
@pytest.mark.parametrize("name", EXACT)
def test_on_the_way_the_known_pixel_is_the_picture_with_noise(name, within):
    n, it = 20_000, Linear()
    pair = Pair(it, 0.9)

    def denoise(x_t, t, cond):
        return replace(pair(x_t, t), v=torch.full_like(x_t, 0.7))

    guidance = [Inpaint(), ClassifierFree(2.0)] if within else [Inpaint()]
    sampler = Sampler(EXACT[name], 8, guidance)
    path = sampler.trajectory(denoise, it, noise(n), asked(n), seeded())
    for x, t in zip(path, sampler.times(it)[1:]):
        first, std = x[..., 0], it.sigma[t].item()
        assert abs(first.mean() - 0.9 * it.alpha[t]) < 4 * std / n**0.5 + 0.01  # α_T is not quite 0
        assert abs(first.std() - std) < 4 * std / (2 * n) ** 0.5 + 1e-12


@pytest.mark.parametrize("repeats", [1, 5])
def test_it_walks_as_the_linear_recursion_says(repeats):
    """The sampler against matrices, for the ancestral step and for RePaint around it."""
    n, it = 20_000, Cosine()
    pair, sampler = Pair(it, 0.9), Sampler(RePaint(DDPM(), repeats), 20, [Inpaint()])
    x = sampler(pair, it, noise(n), asked(n), seeded()).reshape(n, 2)
    mean, cov = moments(pair, sampler.times(it), repeats)
    assert abs(x[:, 1].mean() - mean[1]) < 4 * (cov[1, 1] / n) ** 0.5
    assert abs(x[:, 1].var() / cov[1, 1] - 1) < 4 * (2 / n) ** 0.5


def test_independent_pixels_are_drawn_as_if_nothing_was_known():
    it = Linear()
    pair = Pair(it, 0.0)
    mean, cov = moments(pair, Sampler(DDPM()).times(it), 1)
    assert abs(mean[1] - MEAN[1]) < 1e-3
    assert abs(cov[1, 1] ** 0.5 - 0.5) < 5e-3


def test_how_far_it_is_from_the_conditional_distribution():
    """The docstrings' figures: at ρ = 0.9 the exact mean is 0.53, the standard deviation 0.218."""
    exact_mean, exact_std = MEAN[1] + 0.9 * (0.9 - MEAN[0]), 0.5 * math.sqrt(1 - 0.9**2)
    it = Cosine()
    pair = Pair(it, 0.9)

    def of(steps, repeats):
        mean, cov = moments(pair, Sampler(DDPM(), steps).times(it), repeats)
        return (mean[1] - MEAN[1]) / (exact_mean - MEAN[1]), cov[1, 1] ** 0.5 / exact_std

    # As a share of the way from the mean of the data to the mean given the known pixel.
    for steps, repeats, way, spread in (
        (50, 1, 0.67, 1.30),
        (1000, 1, 0.70, 1.37),  # more steps do not mend it
        (10, 5, 0.73, 1.06),  # as many evaluations as 50 steps
        (50, 5, 0.93, 0.91),
        (25, 10, 0.92, 0.89),
        (50, 20, 0.97, 0.85),
    ):
        share, ratio = of(steps, repeats)
        assert share == pytest.approx(way, abs=0.01), (steps, repeats)
        assert ratio == pytest.approx(spread, abs=0.02), (steps, repeats)


def test_inside_or_outside_of_classifier_free_guidance_it_is_the_same():
    def denoise(x_t, t, cond):
        x_0 = torch.tanh(x_t + cond.values["label"].reshape(-1, 1, 1, 1))
        one = torch.ones((), dtype=x_t.dtype)
        return Prediction(x_t, x_0, 0.6 * one, 0.8 * one)

    values = {**asked(6).values, "label": torch.arange(6)}
    cond, x, t = Condition(values, {"label": 9}), noise(6), torch.tensor(3)
    inside = ClassifierFree(3.0)(Inpaint()(denoise))(x, t, cond)
    outside = Inpaint()(ClassifierFree(3.0)(denoise))(x, t, cond)
    torch.testing.assert_close(inside.x_0, outside.x_0)
    torch.testing.assert_close(outside.alpha * outside.x_0 + outside.sigma * outside.eps, x)


@pytest.mark.parametrize("key", ["known", "mask"])
def test_without_a_picture_or_a_mask_it_says_so(key):
    values = {k: v for k, v in asked(2).values.items() if k != key}
    with pytest.raises(ValueError, match=f"needs the condition '{key}'.*expected data.edit"):
        Inpaint()(Pair(Linear(), 0.5))(noise(2), torch.tensor(3), Condition(values))
