# pyright: strict
"""DPM-Solver++(2M) for the ODE and for the SDE (Lu et al. 2022)."""

from copy import copy

from torch import Tensor

from diffusion.process import Process
from diffusion.step.base import Denoise, Noise, Step


def half_log_snr(process: Process, t: Tensor) -> Tensor:
    """Returns λ_t = log(α_t / σ_t) in float64: ∞ at t = 0, and −∞ where no signal is left."""
    return 0.5 * process.snr(t, process.alpha).log()


class DPMSolver(Step):
    """DPM-Solver++: x̂_0 extrapolated in λ = log(α/σ), the linear rest of the equation solved.

    With h = λ_s − λ_t, h' = λ_t − λ_r for the time r of the evaluation before, and
    D = x̂_0(t) + (h / 2h') (x̂_0(t) − x̂_0(r)),

        x_s = (σ_s / σ_t) e^(−η² h) x_t + α_s (1 − e^(−(1 + η²) h)) D + σ_s √(1 − e^(−2 η² h)) z

    η = 0 is DPM-Solver++(2M) (Lu et al. 2022, algorithm 2; https://arxiv.org/abs/2211.01095) and
    η = 1 the same paper's SDE-DPM-Solver++(2M). In between and beyond, η multiplies the diffusion
    coefficient of the reverse SDE, whose marginals are the ODE's for any η. One evaluation a step.
    The first step is of first order for want of a history, and so is one into s = 0, where λ = ∞
    (as in published code); after a time with α = 0, λ = −∞, h / h' is 0.

    Args:
        order: 2, or 1, which is DDIM: with η = 0 the deterministic one, with η = 1 DDPM's.
        eta: η.

    Raises:
        ValueError: If the order is not 1 or 2, or η is negative.
    """

    def __init__(self, order: int = 2, eta: float = 0.0) -> None:
        if order not in (1, 2):
            raise ValueError(f"order: {order}; expected 1 or 2")
        if not eta >= 0:
            raise ValueError(f"eta: {eta}; expected a number ≥ 0")
        self.order, self.eta = order, eta
        self._before: tuple[Tensor, Tensor] | None = None  # λ and x̂_0 of the last evaluation

    def begin(self) -> "DPMSolver":
        """See `Step`."""
        step = copy(self)
        step._before = None
        return step

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """See `Step`."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.lookup(t, x_t), process.lookup(s, x_t)
        x_0, lam = denoise(x_t, t).x_0, half_log_snr(process, t)
        d = x_0
        if self._before is not None and self.order == 2 and s > 0:
            lam_r, x_0_r = self._before
            d = x_0 + 0.5 * (half_log_snr(process, s) - lam) / (lam - lam_r) * (x_0 - x_0_r)
        self._before = lam, x_0
        decay = alpha_t * sigma_s / (alpha_s * sigma_t)  # e^(−h), finite where λ is not
        towards = sigma_s / sigma_t * decay ** (self.eta**2)
        x_s = towards * x_t + alpha_s * (1 - decay ** (1 + self.eta**2)) * d
        if self.eta == 0 or s == 0:
            return x_s
        return x_s + sigma_s * (1 - decay ** (2 * self.eta**2)).sqrt() * noise(x_t)
