# pyright: strict
"""What the network's output F means: x̂_0 = c_skip x_t + c_out F.

============  ==========================  =====================  ==================
class         F estimates                 c_skip                 c_out
============  ==========================  =====================  ==================
`Eps`         ε                           1 / α_t                −σ_t / α_t
`X0`          x_0                         0                      1
`V`           α_t ε − σ_t x_0             α_t / (α_t² + σ_t²)    −σ_t / (α_t² + σ_t²)
`Velocity`    ε − x_0                     1 / (α_t + σ_t)        −σ_t / (α_t + σ_t)
`Mean`        μ̃ = E[x_{t−1} | x_t, x_0]   −b / a                 1 / a
`MeanShift`   (μ̃ − α_{t|t−1} x_t)         (α_{t|t−1} − b) / a    σ_{t|t−1} / a
              / σ_{t|t−1}
============  ==========================  =====================  ==================

(a and b are the weights of x_0 and x_t in μ̃; see `diffusion.process`.) The regression target is
the same line solved for F: F* = (x_0 − c_skip x_t) / c_out.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.process import Process


class Parameterization(ABC):
    """Two coefficients turn the network's output into x̂_0, and x_0 into its target.

    Attributes:
        clippable: Whether x̂_0 may be clipped to the data's range.
    """

    clippable: ClassVar[bool] = True

    @abstractmethod
    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns c_skip and c_out, broadcastable against x_t.

        Args:
            process: The forward process.
            t: Times in 1 … T, shape () or (B,).
            x_t: Shape (B, ...).
        """

    def x_0(self, F: Tensor, process: Process, t: Tensor, x_t: Tensor) -> Tensor:
        """Returns x̂_0 = c_skip x_t + c_out F."""
        c_skip, c_out = self.coefficients(process, t, x_t)
        return c_skip * x_t + c_out * F

    def target(self, x_0: Tensor, process: Process, t: Tensor, x_t: Tensor) -> Tensor:
        """Returns F* = (x_0 − c_skip x_t) / c_out, what a perfect network would put out."""
        c_skip, c_out = self.coefficients(process, t, x_t)
        return (x_0 - c_skip * x_t) / c_out


class Eps(Parameterization):
    """F = ε (DDPM, eq. 11)."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above."""
        alpha, sigma = process.scales(t, x_t)
        return 1 / alpha, -sigma / alpha


class X0(Parameterization):
    """F = x_0."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above."""
        return x_t.new_zeros(()), x_t.new_ones(())


class V(Parameterization):
    """F = v = α_t ε − σ_t x_0 (Salimans & Ho 2022, section 4)."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above; α² + σ² is 1 for variance-preserving processes."""
        alpha, sigma = process.scales(t, x_t)
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm


class Velocity(Parameterization):
    """F = ε − x_0, the time derivative of rectified flow's path (Liu et al. 2022, eq. 1)."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above; α + σ is 1 for rectified flow."""
        alpha, sigma = process.scales(t, x_t)
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)


class Mean(Parameterization):
    """F = μ̃, the mean of x_{t−1} itself (DPM 2015, section 2.2; DDPM, table 2, first rows).

    1 / a grows to 7,800 for 1000 linear steps, so do not clip x̂_0 when sampling with it.
    """

    clippable = False

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above."""
        a, b = process.posterior_weights(t, t - 1, x_t)
        return -b / a, 1 / a


class MeanShift(Parameterization):
    """μ = α_{t|t−1} x_t + σ_{t|t−1} F: how the 2015 code writes the mean, as a shift of x_t.

    With F = 0 the reverse step is "stay where you are", which is nearly right for small steps; a
    network that has to put out the mean itself spends its accuracy on repeating its input.
    """

    clippable = False

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above."""
        a, b = process.posterior_weights(t, t - 1, x_t)
        (alpha_t, _), (alpha_s, _) = process.lookup(t, x_t), process.lookup(t - 1, x_t)
        forward, _ = process.variances(t, t - 1, x_t)
        ratio = (alpha_t / alpha_s).to(x_t.dtype)
        return (ratio - b) / a, forward.sqrt() / a


def check(parameterization: Parameterization, process: Process) -> None:
    """Refuses a pair that has no answer at some time.

    Raises:
        ValueError: If x̂_0 would not be finite, as with `Eps` where α_T = 0.
    """
    t = torch.arange(1, process.T + 1)
    c_skip, c_out = parameterization.coefficients(process, t, torch.zeros(process.T, 1))
    if not (c_skip.isfinite().all() and c_out.isfinite().all()):
        name, of = type(parameterization).__name__, type(process).__name__
        raise ValueError(
            f"parameterization: {name} is undefined for {of}, whose α_T is "
            f"{process.alpha[-1].item():g}; expected X0, V or Velocity"
        )
