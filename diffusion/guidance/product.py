# pyright: strict
"""Products p(x_0) r(x_0) / Z with a second distribution (Sohl-Dickstein et al. 2015, section 2.5).

r says what is known of x_0: here a picture y with noise, to be denoised. (Where pixels are known
as they are, r is a delta on them, and `Inpaint` is the guidance.) The paper multiplies each reverse
kernel by r, p̃(x_s | x_t) ∝ p(x_s | x_t) r(x_s), and takes the normalisation for constant (eq. 18
and 19, appendix C). It is constant to first order in a step, but T of these orders add up: what is
drawn is pulled towards y, and is not the posterior, however many steps there are. That would take
E[r(x_0) | x_t] in the place of r(x_t). For Gaussian noise `Denoise` has it, exactly and at the same
price; `Product` and `BitProduct` are the paper's.
"""

from abc import abstractmethod
from copy import copy
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.base import Guidance
from diffusion.process import Process, Variance
from diffusion.spec import DataSpec


class Observed(Guidance):
    """Draws what an observation y of x_0 is of: the condition "known", in [−1, 1].

    Attributes:
        binary: Whether it is for bits.
    """

    needs: ClassVar[tuple[str, ...]] = ("known",)
    binary: ClassVar[bool] = False
    _grid: tuple[Process, Tensor, Variance | None] | None = None

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Guidance`; also that it is for such a process."""
        if process.binary != self.binary:
            right = "BitProduct" if process.binary else "Denoise or Product"
            raise ValueError(f"sampler.guidance: {type(self).__name__}; expected {right}")

    def begin(self, process: Process, times: Tensor, ancestral: Variance | None) -> "Observed":
        """See `Guidance`."""
        following = torch.zeros(process.T + 1, dtype=torch.long)
        following[times[:-1]] = times[1:]
        guide = copy(self)
        guide._grid = process, following, ancestral
        return guide

    def grid(self) -> tuple[Process, Tensor, Variance | None]:
        """Returns the process, the time that follows each, and Σ of an ancestral step.

        Raises:
            ValueError: If there is no trajectory.
        """
        if self._grid is None:
            kind = type(self).__name__
            raise ValueError(f"guidance: {kind} has no grid of times; expected a Sampler")
        return self._grid

    def observation(self, cond: Condition, x_t: Tensor) -> Tensor:
        """Returns y, x_t's shape and dtype.

        Raises:
            ValueError: If there is none.
        """
        if "known" not in cond.values:
            raise self.lacks("the condition 'known'", "data.edit")
        return cond.values["known"].to(x_t)


class Denoise(Observed):
    """x̂_0(x_t) ← E[x_0 | x_t, y] for y = x_0 + s ε, that is r(x_0) = N(y; x_0, s² I).

    x_t / α_t and y are two measurements of x_0, of variances σ_t² / α_t² and s². Their mean by
    precisions,

        m = (α_t x_t / σ_t² + y / s²) / λ,   λ = α_t² / σ_t² + 1 / s²,

    is all that they say of x_0, and it is x_0 with noise of variance 1 / λ: a lower time t' of the
    process, with σ_t'² / α_t'² = 1 / λ. So x̂_0 is the model's own at α_t' m and t', whatever the
    data are. Exact for an exact denoiser, up to t' being one of 1 … T (the nearest in log σ/α), and
    for every step. A learned variance is that of t'.

    Args:
        sigma: s, in units of the pixels' −1 … 1; not below σ_1 / α_1, where the process begins.

    Raises:
        ValueError: If s is not positive.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = _positive(sigma)

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        process, _, _ = self.grid()
        y = self.observation(cond, x_t)
        alpha, sigma = process.lookup(t, x_t)
        precision = (alpha / sigma) ** 2 + 1 / self.sigma**2
        tables = process.tables(t.device)
        log_u = (tables[1][1:] / tables[0][1:]).log()
        wanted = -0.5 * precision.log().reshape(t.shape)
        earlier = 1 + (log_u - wanted[..., None]).abs().argmin(-1)
        m = (alpha / sigma**2 * x_t + y / self.sigma**2) / precision
        x = (process.lookup(earlier, x_t)[0] * m).to(x_t.dtype)
        pred = denoise(x, earlier, cond)
        return Prediction(x_t, pred.x_0, *process.scales(t, x_t), pred.v, pred.known)

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Guidance`; also that the process knows so little noise."""
        super().check(process, data)
        least = (process.sigma[1] / process.alpha[1]).item()
        if self.sigma < least:
            raise ValueError(
                f"guidance.sigma: {self.sigma}; expected at least {least:.2g}, the least noise "
                "that the model was trained on"
            )


class KernelProduct(Observed):
    """p̃(x_s | x_t) ∝ p(x_s | x_t) r(x_s) (eq. 19): another mean μ̃ of an ancestral step."""

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`; x̂_0 becomes that of μ̃."""
        process, following, _ = self.grid()
        y, pred, s = self.observation(cond, x_t), denoise(x_t, t, cond), following.to(t.device)[t]
        a, b = process.posterior_weights(t, s, pred.x_0)
        mean = self.mean(a * pred.x_0 + b * x_t, y, pred, t, s)
        return pred.with_x_0((mean - b * x_t) / a)

    @abstractmethod
    def mean(self, mu: Tensor, y: Tensor, pred: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """Returns μ̃.

        Args:
            mu: μ, of p(x_s | x_t).
            y: The observation.
            pred: The prediction before guidance.
            t: The time.
            s: The time that follows.
        """


class Product(KernelProduct):
    """μ̃ = μ + Σ̃ ∇ log r(μ) = μ + (y − μ) Σ / (Σ + s²), r(x) = N(y; x, s² I), Σ̃ = (1/Σ + 1/s²)⁻¹.

    The product's mean, as in the authors' code; appendix C has Σ where Σ̃ stands, to which it tends
    for Σ ≪ s². Σ of the step stays as it is. For the step `DDPM`.

    Args:
        sigma: s, in units of the pixels' −1 … 1.

    Raises:
        ValueError: If s is not positive.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = _positive(sigma)

    def begin(self, process: Process, times: Tensor, ancestral: Variance | None) -> "Observed":
        """See `Guidance`.

        Raises:
            ValueError: If the step is not an ancestral one.
        """
        if ancestral is None:
            raise ValueError(
                "sampler.guidance: Product is of the kernels of an ancestral step; expected the "
                "step DDPM, or the guidance Denoise, which works with every step"
            )
        return super().begin(process, times, ancestral)

    def mean(self, mu: Tensor, y: Tensor, pred: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """See `KernelProduct`."""
        process, _, variance = self.grid()
        if variance is None:
            return mu
        log_variance = process.reverse_log_variance(t, s, pred.x_t, variance, pred.v)
        return mu + (y - mu) * log_variance.exp() / (log_variance.exp() + self.sigma**2)


class BitProduct(KernelProduct):
    """μ̃ = (μ + ρ y) / (1 + ρ μ y), r(x) = ∏ P(y_i | x_i): each bit of y is x's, but for flips.

    With c and d the probabilities of a 1 under p and r, P̃(1) = c d / (c d + (1 − c)(1 − d)) (table
    App.1, the perturbed binomial), here for means, where d = ½ (1 + ρ y) and ρ = 1 − 2 flip.

    Args:
        flip: How likely a bit of y is not that of x, 0 < flip ≤ ½.

    Raises:
        ValueError: If it is out of its range.
    """

    binary: ClassVar[bool] = True

    def __init__(self, flip: float) -> None:
        if not 0 < flip <= 0.5:
            raise ValueError(f"guidance.flip: {flip}; expected above 0, at most 0.5")
        self.flip = flip

    def mean(self, mu: Tensor, y: Tensor, pred: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """See `KernelProduct`."""
        pull = (1 - 2 * self.flip) * y
        return (mu + pull) / (1 + pull * mu)


def _positive(sigma: float) -> float:
    if not 0 < sigma < float("inf"):
        raise ValueError(f"guidance.sigma: {sigma}; expected a positive number")
    return sigma
