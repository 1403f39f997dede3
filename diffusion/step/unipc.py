# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
"""UniPC: a predictor and a corrector that share each evaluation (Zhao et al. 2023)."""

import math
from copy import copy
from typing import Literal, get_args

import torch
from torch import Tensor

from diffusion.process import Process
from diffusion.step.base import Denoise, Noise, Step
from diffusion.step.dpm_solver import half_log_snr

Variant = Literal["bh1", "bh2"]
Point = tuple[Tensor, Tensor]  # λ and x̂_0 of an evaluation


class UniPC(Step):
    """The unified predictor-corrector in x̂_0 (Zhao et al. 2023; https://arxiv.org/abs/2302.04867).

    With λ = log(α/σ), h = λ_s − λ_t, and m_i = x̂_0 at other times λ_i = λ_t + r_i h,

        x_s = (σ_s / σ_t) x_t + α_s (1 − e^(−h)) m_t − α_s B(h) Σ_i a_i (m_i − m_t) / r_i

    where the a_i solve Σ_i a_i r_i^(n−1) = −h n! φ_n+1(−h) / B(h) for n = 1, 2 …, with
    φ_1(z) = (e^z − 1) / z and φ_n+1(z) = (φ_n(z) − 1/n!) / z; a single a is 1/2. The predictor
    takes earlier times for i. The corrector, which replaces x_t once x̂_0(t) is known, is the step
    before once more with i = t too, r_i = 1. So one evaluation a step serves both.

    A step into s = 0 (λ = ∞) or from α = 0 (λ = −∞) is of first order and not corrected, and a
    time of λ = −∞ is no i. Unlike in published code, order 3 is not lowered in the last step but
    one: a step does not know how many are to come.

    Args:
        order: 1 to 3, of the predictor; the corrector gains one (theorem 3.1). 2 is the safe choice
            under strong guidance or in fewer than 10 steps.
        variant: B(h): −h for "bh1", e^(−h) − 1 for "bh2", the safe choice in few steps.
        corrector: False leaves the predictor alone, UniP; with order 1 that is DDIM.

    Raises:
        ValueError: If the order is not 1, 2 or 3, or the variant is unknown.
    """

    def __init__(self, order: int = 2, variant: Variant = "bh2", corrector: bool = True) -> None:
        if order not in (1, 2, 3):
            raise ValueError(f"order: {order}; expected 1, 2 or 3")
        if variant not in get_args(Variant):
            raise ValueError(
                f"variant: {variant!r}; expected one of {', '.join(get_args(Variant))}"
            )
        self.order, self.variant, self.corrector = order, variant, corrector
        self._points: list[Point] = []  # evaluations before t, the last one first
        self._last: tuple[Tensor, Tensor] | None = None  # the step before: its corrected x and time

    def begin(self) -> "UniPC":
        """See `Step`."""
        step = copy(self)
        step._points, step._last = [], None
        return step

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """See `Step`."""
        now = half_log_snr(process, t), denoise(x_t, t).x_0
        if self._last is not None and self.corrector and self._points[0][0].isfinite():
            x_r, r = self._last
            x_t = self._solve(process, x_r, r, t, self._points[0], [*self._points[1:], now])
        self._points = [now, *(p for p in self._points if p[0].isfinite())][: self.order]
        self._last = x_t, t
        earlier = self._points[1:] if s > 0 and now[0].isfinite() else []
        return self._solve(process, x_t, t, s, now, earlier)

    def _solve(
        self, process: Process, x_t: Tensor, t: Tensor, s: Tensor, now: Point, others: list[Point]
    ) -> Tensor:
        """Returns x_s by the formula above, from x̂_0 at t and at other times."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.lookup(t, x_t), process.lookup(s, x_t)
        lam, m_t = now
        decay = alpha_t * sigma_s / (alpha_s * sigma_t)  # e^(−h), finite where λ is not
        x_s = sigma_s / sigma_t * x_t + alpha_s * (1 - decay) * m_t
        if not others:
            return x_s
        h = half_log_snr(process, s) - lam
        r = (torch.stack([lam_i for lam_i, _ in others]) - lam) / h
        B = -h if self.variant == "bh1" else torch.expm1(-h)
        for weight, (_, m_i) in zip(-alpha_s * B * self._weights(r, h, B) / r, others, strict=True):
            x_s = x_s + weight * (m_i - m_t)
        return x_s

    @staticmethod
    def _weights(r: Tensor, h: Tensor, B: Tensor) -> Tensor:
        """Returns a_i, in float64."""
        if len(r) == 1:
            return torch.full_like(r, 0.5)
        phi, rights = torch.expm1(-h) / -h, list[Tensor]()
        for n in range(1, len(r) + 1):
            phi = (phi - 1 / math.factorial(n)) / -h
            rights.append(-h * math.factorial(n) * phi / B)
        powers = torch.arange(len(r))[:, None]
        return torch.linalg.solve(r**powers, torch.stack(rights))
