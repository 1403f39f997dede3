# pyright: strict
"""x̂_0 as a line in the network's output; the table is in `base`."""

from torch import Tensor

from diffusion.parameterization.base import Parameterization
from diffusion.process import Process


class Eps(Parameterization):
    """F = ε (DDPM, eq. 11)."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table in `base`."""
        alpha, sigma = process.scales(t, x_t)
        return 1 / alpha, -sigma / alpha


class X0(Parameterization):
    """F = x_0."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table in `base`."""
        return x_t.new_zeros(()), x_t.new_ones(())


class V(Parameterization):
    """F = v = α_t ε − σ_t x_0 (Salimans & Ho 2022, section 4)."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table in `base`; α² + σ² is 1 for variance-preserving processes."""
        alpha, sigma = process.scales(t, x_t)
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm


class Velocity(Parameterization):
    """F = ε − x_0, the time derivative of rectified flow's path (Liu et al. 2022, eq. 1)."""

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table in `base`; α + σ is 1 for rectified flow."""
        alpha, sigma = process.scales(t, x_t)
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)


class Mean(Parameterization):
    """F = μ̃, the mean of x_{t−1} itself (DPM 2015, section 2.2; DDPM, table 2, first rows).

    1 / a grows to 7,800 for 1000 linear steps, so do not clip x̂_0 when sampling with it.
    """

    clippable = False

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table in `base`."""
        a, b = process.posterior_weights(t, t - 1, x_t)
        return -b / a, 1 / a


class MeanShift(Parameterization):
    """μ = α_{t|t−1} x_t + σ_{t|t−1} F: how the 2015 code writes the mean, as a shift of x_t.

    With F = 0 the reverse step is "stay where you are", which is nearly right for small steps; a
    network that has to put out the mean itself spends its accuracy on repeating its input.
    """

    clippable = False

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table in `base`."""
        a, b = process.posterior_weights(t, t - 1, x_t)
        (alpha_t, _), (alpha_s, _) = process.lookup(t, x_t), process.lookup(t - 1, x_t)
        forward, _ = process.variances(t, t - 1, x_t)
        ratio = (alpha_t / alpha_s).to(x_t.dtype)
        return (ratio - b) / a, forward.sqrt() / a
