# pyright: strict
"""The binomial kernel: bits that are flipped (Sohl-Dickstein et al. 2015, table App.1)."""

from typing import ClassVar

import torch
from torch import Tensor

from diffusion.process.base import Process


class Binomial(Process):
    """q(x_t | x_{t−1}) = B(x_{t−1} (1 − β_t) + ½ β_t) for bits, with β_t = 1 / (T − t + 1).

    Each bit is drawn anew with probability β_t, which erases 1/T of the signal a step (section
    2.4.1); α_t = ∏_{u ≤ t} (1 − β_u) = 1 − t/T of it is left, and at T nothing. Bits are −1 and 1
    here, and a distribution of them is its mean m, P(1) = ½ (1 + m), so that

        q(x_t | x_0)      has the mean α_t x_0 and the variance σ_t² = 1 − α_t²
        q(x_s | x_t, x_0) has the mean a x_0 + b x_t = (α_s x_0 + α_{t|s} x_t) / (1 + α_t x_0 x_t)

    with the a and b of a Gaussian process of the same tables: Bayes' rule is linear where
    x_0² = x_t² = 1. So x_t = α_t x_0 + σ_t ε still holds, with an ε of two values, and x̂_0 is
    E[x_0 | x_t]: a denoiser, its parameterisation and `Inpaint` do not see the difference. What
    does: the `Step`, which has to be `Bernoulli`, and the terms of the bound.

    Args:
        T: The number of times; the paper's heartbeat has 2000.
    """

    binary: ClassVar[bool] = True

    def __init__(self, T: int = 2000) -> None:
        alpha = 1 - torch.arange(T + 1, dtype=torch.float64) / max(T, 1)
        super().__init__(alpha, (1 - alpha**2).sqrt())

    def diffuse(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Draws x_t: 1 where Φ(ε) < ½ (1 + α_t x_0), else −1.

        Args:
            x_0: Bits (B, ...), or their means in [−1, 1].
            t: Times in 0 … T, shape () or (B,).
            eps: Standard normal noise, x_0's shape.
        """
        return bits(self.lookup(t, x_0)[0] * x_0, eps)

    def prior(self, noise: Tensor) -> Tensor:
        """See `Process`: each bit is −1 or 1, one as likely as the other."""
        return bits(torch.zeros_like(noise), noise)


def bits(mean: Tensor, noise: Tensor) -> Tensor:
    """Draws bits of a mean in [−1, 1]: 1 where Φ(noise) < ½ (1 + mean), else −1.

    Args:
        mean: Broadcastable against the noise.
        noise: Standard normal, so that Φ(noise) is uniform in (0, 1).

    Returns:
        Bits of the noise's shape and dtype.
    """
    # Φ(noise) = ½ (1 + erf(noise / √2))
    return torch.where(torch.erf(noise.double() / 2**0.5) < mean, 1.0, -1.0).to(noise.dtype)
