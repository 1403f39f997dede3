# pyright: strict
"""EDM's second-order sampler (Karras et al. 2022, algorithms 1 and 2)."""

import math

import torch
from torch import Tensor

from diffusion.process import Process
from diffusion.step.base import Denoise, Noise, Step

SIGMA_MAX = 80.0


class Heun(Step):
    """Heun's method for dy = ε̂ du, where y = x/α and u = σ/α is the σ of EDM's paper.

    With the DDIM step x'_s = α_s x̂_0 + σ_s ε̂ as Euler's, and ε̂' the noise found at (x'_s, s),

        x_s = x'_s + (σ_s − α_s σ_t / α_t) (ε̂' − ε̂) / 2

    (Karras et al. 2022, algorithm 2; https://arxiv.org/abs/2206.00364). A step into s = 0 keeps
    x'_s, so that N steps cost 2N − 1 evaluations. So does a step from u > 80, beyond EDM's σ_max:
    there ε̂ hardly changes but u does without bounds, up to ∞ where α_T = 0.

    Args:
        churn: γ, by how much u is raised with fresh noise before a step, 0 … √2 − 1; EDM's
            S_churn / N. The rise goes to the next time of the table that is noisy enough.
        s_min: The least u at which noise is added.
        s_max: The largest.
        s_noise: The standard deviation of what is added; EDM uses up to 1.007 against lost detail.

    Raises:
        ValueError: If churn is out of range, s_min exceeds s_max, or s_noise is negative.
    """

    def __init__(
        self, churn: float = 0.0, s_min: float = 0.0, s_max: float = math.inf, s_noise: float = 1.0
    ) -> None:
        if not 0 <= churn <= math.sqrt(2) - 1:
            raise ValueError(f"churn: {churn}; expected 0 … √2 − 1 (EDM's S_churn / steps)")
        if not 0 <= s_min <= s_max:
            raise ValueError(f"s_min: {s_min}; expected 0 … s_max = {s_max}")
        if not s_noise >= 0:
            raise ValueError(f"s_noise: {s_noise}; expected a number ≥ 0")
        self.churn, self.s_min, self.s_max, self.s_noise = churn, s_min, s_max, s_noise

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """See `Step`."""
        x_t, t = self._raised(process, x_t, t, noise)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.lookup(t, x_t), process.lookup(s, x_t)
        pred = denoise(x_t, t)
        eps = pred.eps
        x_s = alpha_s * pred.x_0 + sigma_s * eps
        if s == 0 or sigma_t > SIGMA_MAX * alpha_t:
            return x_s
        half = 0.5 * (sigma_s - alpha_s * sigma_t / alpha_t)
        return x_s + half * (denoise(x_s, s).eps - eps)

    def _raised(
        self, process: Process, x_t: Tensor, t: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Returns x at the first time of at least (1 + γ) u_t that has a signal, and that time."""
        if self.churn == 0:
            return x_t, t
        u = process.sigma / process.alpha
        if not self.s_min <= u[t] <= self.s_max:
            return x_t, t
        later = torch.searchsorted(u, (1 + self.churn) * u[t]).clamp(max=u.isfinite().sum() - 1)
        if later <= t:
            return x_t, t
        ratio = process.alpha[later] / process.alpha[t]
        added, _ = process.variances(later, t, process.alpha)
        return ratio * x_t + self.s_noise * added.sqrt() * noise(x_t), later
