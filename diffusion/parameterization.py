# pyright: strict, reportUnknownMemberType=false
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
`Perturbed`   the same, and of Σ         as `MeanShift`         as `MeanShift`
`Equilibrium` x where μ = x, and of Σ    (1 − Σ − b) / a        Σ / a
`LogOdds`     the log-odds of a bit of   none: x̂_0 is no line in F
              x_{t−1}
============  ==========================  =====================  ==================

(a and b are the weights of x_0 and x_t in μ̃; see `diffusion.process`.) The regression target is
the same line solved for F: F* = (x_0 − c_skip x_t) / c_out.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

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


class Perturbed(MeanShift):
    """μ = √(1 − β_t) x_t + √β_t F and Σ = sigmoid(f_Σ / √T + logit β_t), both put out (DPM 2015).

    The authors' code (`get_mu_sigma` of its model.py): the reverse kernel is the forward one where
    the network puts out 0, and for small β_t nearly that. Steps, the bound and the likelihood take
    Σ with `variance: learned`. It is handed on as its place between log β̃ and log β, where any Σ
    has one; for other steps than from t to t − 1 the place stays.
    """

    def read(
        self, F: Tensor, v: Tensor | None, process: Process, t: Tensor, x_t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See `Parameterization`; the second output is f_Σ."""
        place = None if v is None else _place(log_sigma(v, process, t, x_t), process, t, x_t)
        return self.x_0(F, process, t, x_t), place


class Equilibrium(Parameterization):
    """μ = (x_t − F)(1 − Σ) + F and Σ = sigmoid(f_Σ / √T + logit β_t) (DPM 2015, appendix D.2).

    The paper's own μ: F is the mean of the distribution that the step would lead to if it were made
    over and over. The factor is 1 − Σ and no root of it, as printed; 1/√T is the authors' code's.
    Without a second output Σ is β_t, which is also where a regression has its target.
    """

    clippable = False

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """See the table above; with Σ = β_t."""
        return self._given(process.variances(t, t - 1, x_t)[0], process, t, x_t)

    def _given(
        self, variance: Tensor, process: Process, t: Tensor, x_t: Tensor
    ) -> tuple[Tensor, Tensor]:
        a, b = process.posterior_weights(t, t - 1, x_t)
        return (1 - variance - b) / a, variance / a

    def read(
        self, F: Tensor, v: Tensor | None, process: Process, t: Tensor, x_t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See `Parameterization`; the second output is f_Σ."""
        if v is None:
            return self.x_0(F, process, t, x_t), None
        log_variance = log_sigma(v, process, t, x_t)
        c_skip, c_out = self._given(log_variance.exp(), process, t, x_t)
        return c_skip * x_t + c_out * F, _place(log_variance, process, t, x_t)


def log_sigma(f: Tensor, process: Process, t: Tensor, x_t: Tensor) -> Tensor:
    """Returns log Σ = log sigmoid(f / √T + logit β_t), f's shape (DPM 2015)."""
    beta = process.variances(t, t - 1, x_t)[0]
    return nn.functional.logsigmoid(f / process.T**0.5 + torch.logit(beta))


def _place(log_variance: Tensor, process: Process, t: Tensor, x_t: Tensor) -> Tensor:
    """Returns where log Σ lies between log β̃ (0) and log β (1), which `Prediction.v` is."""
    low = process.reverse_log_variance(t, t - 1, x_t, "small")
    return (log_variance - low) / (process.variances(t, t - 1, x_t)[0].log() - low)


class LogOdds(Parameterization):
    """log P(x_{t−1} = 1) / P(x_{t−1} = −1) = F + x_t log((2 − β_t) / β_t), for bits (`Binomial`).

    The paper's f_b(x_t, t), the probability that p(x_{t−1} | x_t) = B(f_b) has (table App.1), with
    the forward kernel's where F = 0. x̂_0 = (μ − b x_t) / a with μ = 2 f_b − 1.
    """

    clippable = False
    binary = True

    def coefficients(self, process: Process, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """There are none.

        Raises:
            ValueError: Whenever it is called.
        """
        raise ValueError("parameterization: LogOdds has no target; expected VariationalBound")

    def x_0(self, F: Tensor, process: Process, t: Tensor, x_t: Tensor) -> Tensor:
        """Returns x̂_0, in float64, in which 1 − |μ| keeps its digits."""
        x_t = x_t.double()
        a, b = process.posterior_weights(t, t - 1, x_t)
        (alpha_t, _), (alpha_s, _) = process.lookup(t, x_t), process.lookup(t - 1, x_t)
        mu = torch.tanh(F.double().clamp(-30, 30) / 2 + torch.atanh(alpha_t / alpha_s) * x_t)
        return (mu - b * x_t) / a


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
