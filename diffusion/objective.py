# pyright: strict
"""Training objectives: (denoiser, x_0, condition) → one loss per sample."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from diffusion import bound
from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.process import Process, Variance


class Objective(ABC):
    """A loss at a time t and a noise ε.

    Attributes:
        variance: Σ of the reverse transitions; "learned" needs a network that puts one out.
        regresses: Whether it compares the network's output with a target.
    """

    variance: Variance = "small"
    regresses: bool = False

    def draw(self, process: Process, x_0: Tensor, noise: SeededNoise) -> tuple[Tensor, Tensor]:
        """Draws t, uniform in 1 … T, shape (B,), and ε, x_0's shape, from the samples' noise."""
        return 1 + noise.integers(process.T), noise(x_0)

    def __call__(
        self,
        denoiser: NetworkDenoiser,
        x_0: Tensor,
        cond: Condition,
        t: Tensor,
        eps: Tensor,
    ) -> Tensor:
        """Returns the loss, shape (B,).

        Args:
            denoiser: What is trained.
            x_0: The data, shape (B, ...).
            cond: What it is conditioned on, forgotten where training wants it so.
            t: Times in 1 … T, shape (B,): those that `draw` drew, or validation's fixed ones.
            eps: Standard normal noise, x_0's shape.
        """
        return self.loss(denoiser, x_0, cond, t, eps)

    def weigh(self, t: Tensor, losses: Tensor) -> Tensor:
        """Returns the losses to train with, (B,): at times drawn more often they weigh less.

        Args:
            t: The times that `draw` drew, (B,).
            losses: The losses there, (B,).
        """
        return losses

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what training needs to resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027  (most have no state)
        """Restores what `state_dict` returned."""

    @abstractmethod
    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """Returns the loss at the given times and noise, shape (B,)."""


class Simple(Objective):
    """L_simple = ‖F* − F(x_t, t)‖², averaged over the dimensions (DDPM, eq. 14).

    The error is measured in the network's own output: with `Eps` it is the paper's, with `X0`, `V`
    or `Velocity` it weighs the times differently.
    """

    regresses = True

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`."""
        x_t = denoiser.process.diffuse(x_0, t, eps)
        F, _ = denoiser.output(x_t, t, cond)
        target = denoiser.parameterization.target(x_0, denoiser.process, t, x_t)
        return (F - target).square().flatten(1).mean(1)


class MinSNR(Objective):
    """min(SNR_t, γ) ‖x_0 − x̂_0‖² (Hang et al. 2023, section 3.4), for any parameterisation.

    Computed in the network's output, where the weight is min(SNR_t, γ) c_out²: min(SNR, γ) / SNR
    for `Eps` and min(SNR, γ) / (SNR + 1) for `V`.

    Args:
        gamma: γ; the paper's is 5.
    """

    regresses = True

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"objective.gamma: {gamma}; expected a positive number")
        self.gamma = gamma

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`."""
        process, parameterization = denoiser.process, denoiser.parameterization
        x_t = process.diffuse(x_0, t, eps)
        F, _ = denoiser.output(x_t, t, cond)
        _, c_out = parameterization.coefficients(process, t, x_t)
        error = (c_out * (parameterization.target(x_0, process, t, x_t) - F)).square()
        error = error.flatten(1).mean(1)
        return process.snr(t, error).clamp(max=self.gamma) * error


class VariationalBound(Objective):
    """An unbiased estimate of the bound on −log p(x_0), in bits/dim: L_T + T · L_{t−1}.

    t is uniform, so T · L_{t−1} (L_0 for t = 1) has the sum over t as its mean. This is what the
    paper of 2015 maximises (eq. 13 and 14, there with the opposite sign) and DDPM's L (eq. 5). The
    β of a `Learned` process get their gradient from it too.

    Args:
        variance: Σ of the reverse transitions.
        levels: The number of grey values of the data, or None for continuous data.
    """

    def __init__(self, variance: Variance = "small", levels: int | None = 256) -> None:
        self.variance = variance
        self.levels = levels

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`."""
        process = denoiser.process
        pred = denoiser(process.diffuse(x_0, t, eps), t, cond)
        term = bound.term(pred, process, x_0, t, self.variance, self.levels)
        return bound.prior_term(process, x_0) + process.T * term


class Hybrid(Objective):
    """L_hybrid = L_simple + λ L_vlb; L_vlb trains only the variance (Improved DDPM, eq. 16).

    The mean is detached in the second term, so that it learns from L_simple alone. L_vlb is
    estimated as `VariationalBound` does, by T · L_{t−1} in bits/dim (without the constant L_T),
    so λ means what it means in the paper at any T.

    Args:
        weight: λ; the paper's is 0.001.
        levels: The number of grey values of the data, or None for continuous data.

    Raises:
        ValueError: If λ is negative.
    """

    regresses = True

    def __init__(self, weight: float = 0.001, levels: int | None = 256) -> None:
        if not weight >= 0:
            raise ValueError(f"objective.weight: {weight}; expected a number ≥ 0")
        self.weight, self.levels = weight, levels
        self.variance = "learned"

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`.

        Raises:
            ValueError: If the network does not put out a variance.
        """
        process = denoiser.process
        x_t = process.diffuse(x_0, t, eps)
        F, v = denoiser.output(x_t, t, cond)
        target = denoiser.parameterization.target(x_0, process, t, x_t)
        simple = (F - target).square().flatten(1).mean(1)
        pred = denoiser.prediction(F.detach(), v, x_t, t)
        term = bound.term(pred, process, x_0, t, self.variance, self.levels)
        return simple + self.weight * process.T * term
