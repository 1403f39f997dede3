# pyright: strict
"""One reverse transition, x_t → x_s for any s < t."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.process import Process, Variance

Denoise = Callable[[Tensor, Tensor], Prediction]  # (x_t, t) → x̂_0: a condition is given
Noise = Callable[[Tensor], Tensor]  # standard normal, of a tensor's shape


class Step(ABC):
    """How a sampler moves from one time to the next.

    Attributes:
        variance: Σ of its transitions; "learned" needs a network that puts one out.
        binary: Whether it draws bits, which a `Binomial` process needs.
    """

    variance: Variance = "small"
    binary: ClassVar[bool] = False

    @property
    def ancestral(self) -> Variance | None:
        """Σ, if x_s is drawn from N(μ, Σ) with μ the posterior's mean at x̂_0; else None."""
        return None

    def begin(self) -> "Step":
        """Returns the step to use for one trajectory; a multistep solver returns a fresh copy."""
        return self

    @abstractmethod
    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """Returns x_s.

        Args:
            denoise: The guided denoiser; may be called more than once.
            process: The forward process.
            x_t: Shape (B, ...).
            t: The time of x_t, shape (), on the CPU.
            s: The time to go to, 0 ≤ s < t, shape (), on the CPU.
            noise: Draws some.
        """
