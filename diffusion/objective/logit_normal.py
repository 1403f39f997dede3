# pyright: strict
"""Times drawn by a logit-normal density (Esser et al. 2024; https://arxiv.org/abs/2403.03206)."""

import math

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.objective.base import Objective
from diffusion.process import Process
from diffusion.spec import DataSpec
from diffusion.step import Step


class LogitNormal(Objective):
    """E_{t ~ p}[L_t] with another objective's L_t, where logit(t/T) ~ N(m, s²) before rounding up.

    So p_t is the integral of the density (section 3.1, eq. 19) over ((t − 1)/T, t/T],

    p_t = Φ((logit(t/T) − m) / s) − Φ((logit((t − 1)/T) − m) / s).

    The losses are not divided by T p_t: how often a time is drawn is how much it weighs, as in the
    paper. Around `VariationalBound` the mean is then no bound. Validation, whose times are spread
    evenly, does not depend on p.

    Args:
        objective: Whose loss it is; the paper's is `Simple`, with `Velocity` and `RectifiedFlow`.
        mean: m; below 0 prefers times of little noise. The paper's choice is 0.
        std: s > 0; the paper's choice is 1.

    Raises:
        ValueError: If m is not finite, or s is not positive and finite.
    """

    def __init__(self, objective: Objective, mean: float = 0.0, std: float = 1.0) -> None:
        if not math.isfinite(mean):
            raise ValueError(f"objective.mean: {mean}; expected a finite number")
        if not 0 < std < math.inf:
            raise ValueError(f"objective.std: {std}; expected a positive number")
        self.objective, self.mean, self.std = objective, mean, std
        self.variance, self.regresses = objective.variance, objective.regresses

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Objective`."""
        self.objective.check(process, data)

    def check_drawing(self, process: Process, step: Step, times: Tensor) -> None:
        """See `Objective`."""
        self.objective.check_drawing(process, step, times)

    def times(self, normal: Tensor, T: int) -> Tensor:
        """Returns t = ⌈T / (1 + exp(−m − s n))⌉ in 1 … T, for standard normal n."""
        return (T * torch.sigmoid(self.mean + self.std * normal)).ceil().long().clamp(1, T)

    def draw(self, process: Process, x_0: Tensor, noise: SeededNoise) -> tuple[Tensor, Tensor]:
        """Draws t from p, shape (B,), and ε, x_0's shape, from the samples' noise."""
        return self.times(noise.normal(()), process.T), noise(x_0)

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`."""
        return self.objective.loss(denoiser, x_0, cond, t, eps)
