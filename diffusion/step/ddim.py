# pyright: strict
"""DDIM and, as its case η = 1, DDPM's ancestral sampling."""

import torch
from torch import Tensor

from diffusion.process import Process, Variance
from diffusion.step.base import Denoise, Noise, Step


class DDIM(Step):
    """x_s = α_s x̂_0 + √(σ_s² − η² β̃) ε̂ + η √Σ z (DDIM, eq. 12; https://arxiv.org/abs/2010.02502).

    Args:
        eta: 0 is the deterministic sampler, 1 is DDPM's.
        variance: Σ: the posterior's β̃ ("small"), the forward process's σ²_{t|s} ("large"; with
            η = 1 that is the row σ̂ of DDIM's table 1), or what the network says ("learned").
            Where x_0 is known it is β̃, at most σ_s² / η².

    Raises:
        ValueError: If η is negative.
    """

    def __init__(self, eta: float = 0.0, variance: Variance = "small") -> None:
        if not eta >= 0:
            raise ValueError(f"eta: {eta}; expected a number ≥ 0")
        self.eta = eta
        self.variance = variance

    @property
    def ancestral(self) -> Variance | None:
        """See `Step`; Σ if η = 1."""
        return self.variance if self.eta == 1 else None

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """See `Step`."""
        pred = denoise(x_t, t)
        alpha_s, sigma_s = process.scales(s, x_t)
        _, posterior = process.variances(t, s, x_t)
        drawn = torch.minimum(self.eta**2 * posterior, sigma_s**2)
        x_s = alpha_s * pred.x_0 + (sigma_s**2 - drawn).sqrt() * pred.eps
        if self.eta == 0 or s == 0:
            return x_s
        log_variance = process.reverse_log_variance(t, s, x_t, self.variance, pred.v)
        std = self.eta * torch.exp(0.5 * log_variance)
        if pred.known is not None:
            std = torch.where(pred.known, drawn.sqrt(), std)
        return x_s + std * noise(x_t)


class DDPM(DDIM):
    """Ancestral sampling, x_s ~ p(x_s | x_t) (DDPM, algorithm 2; https://arxiv.org/abs/2006.11239).

    Args:
        variance: "small" is β̃, "large" is β; the paper's CIFAR-10 model uses the large one.
    """

    def __init__(self, variance: Variance = "small") -> None:
        super().__init__(eta=1.0, variance=variance)
