# pyright: strict
"""Ancestral sampling of bits."""

from typing import ClassVar

from torch import Tensor

from diffusion.process import Process
from diffusion.process.binomial import bits
from diffusion.step.base import Denoise, Noise, Step


class Bernoulli(Step):
    """x_s ~ B with the mean a x̂_0 + b x_t (Sohl-Dickstein et al. 2015, table App.1), also at s = 0.

    For s = t − 1 that is the network's own p(x_{t−1} | x_t), and for other s what follows from
    x̂_0 = E[x_0 | x_t], clipped to −1 … 1. Bits are drawn independently, which is exact only for
    small steps.
    """

    binary: ClassVar[bool] = True

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """See `Step`."""
        x_0 = denoise(x_t, t).x_0
        if s < t - 1:
            x_0 = x_0.clamp(-1, 1)
        a, b = process.posterior_weights(t, s, x_0)
        return bits(a * x_0 + b * x_t, noise(x_t))
