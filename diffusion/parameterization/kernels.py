# pyright: strict, reportUnknownMemberType=false
"""Networks that put out the reverse kernel, mean and variance or bits (DPM 2015)."""

import torch
from torch import Tensor, nn

from diffusion.parameterization.base import Parameterization
from diffusion.parameterization.lines import MeanShift
from diffusion.process import Process


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
        """See the table in `base`; with Σ = β_t."""
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
