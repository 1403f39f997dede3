# pyright: strict
"""What the network's output F means: x̂_0 = c_skip x_t + c_out F.

=============  ==========================  =====================  ====================
class          F estimates                 c_skip                 c_out
=============  ==========================  =====================  ====================
`Eps`          ε                           1 / α_t                −σ_t / α_t
`X0`           x_0                         0                      1
`V`            α_t ε − σ_t x_0             α_t / (α_t² + σ_t²)    −σ_t / (α_t² + σ_t²)
`Velocity`     ε − x_0                     1 / (α_t + σ_t)        −σ_t / (α_t + σ_t)
`Mean`         μ̃ = E[x_{t−1} | x_t, x_0]   −b / a                 1 / a
`MeanShift`    (μ̃ − α_{t|t−1} x_t)         (α_{t|t−1} − b) / a    σ_{t|t−1} / a
               / σ_{t|t−1}
`Perturbed`    the same; and Σ             the same               the same
`Equilibrium`  x_t where μ = x_t; and Σ    (1 − Σ − b) / a        Σ / a
`LogOdds`      log-odds of a bit x_{t−1}   none                   none
=============  ==========================  =====================  ====================

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
        binary: Whether it is for bits alone, and for no regression: x̂_0 is no line in F.
    """

    clippable: ClassVar[bool] = True
    binary: ClassVar[bool] = False

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

    def read(
        self, F: Tensor, v: Tensor | None, process: Process, t: Tensor, x_t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Returns x̂_0, and where Σ lies between log β̃ (0) and log β (1) if the network says it.

        Args:
            F: The network's output, x_t's shape.
            v: Its second output; −1 … 1 becomes 0 … 1, as in Improved DDPM's code. None if it has
                none.
            process: The forward process.
            t: Times in 1 … T, shape () or (B,).
            x_t: Shape (B, ...).
        """
        return self.x_0(F, process, t, x_t), None if v is None else (v + 1) / 2

    def target(self, x_0: Tensor, process: Process, t: Tensor, x_t: Tensor) -> Tensor:
        """Returns F* = (x_0 − c_skip x_t) / c_out, what a perfect network would put out."""
        c_skip, c_out = self.coefficients(process, t, x_t)
        return (x_0 - c_skip * x_t) / c_out


def check(parameterization: Parameterization, process: Process) -> None:
    """Refuses a pair that has no answer at some time.

    Raises:
        ValueError: If x̂_0 would not be finite, as with `Eps` where α_T = 0, or is of bits alone.
    """
    if parameterization.binary and not process.binary:
        name, of = type(parameterization).__name__, type(process).__name__
        raise ValueError(f"parameterization: {name}; expected one of no bits, for {of}")
    t = torch.arange(1, process.T + 1)
    one = torch.ones(process.T, 1)
    if not parameterization.x_0(one, process, t, one).isfinite().all():
        name, of = type(parameterization).__name__, type(process).__name__
        raise ValueError(
            f"parameterization: {name} is undefined for {of}, whose α_T is "
            f"{process.alpha[-1].item():g}; expected X0, V or Velocity"
        )
