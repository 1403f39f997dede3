# pyright: strict
"""Training objectives: (denoiser, x_0, condition) → one loss per sample."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.process import Process, Variance
from diffusion.spec import DataSpec
from diffusion.step import Step


class Objective(ABC):
    """A loss at a time t and a noise ε.

    Attributes:
        variance: Σ of the reverse transitions; "learned" needs a network that puts one out.
        regresses: Whether it compares the network's output with a target.
    """

    variance: Variance = "small"
    regresses: bool = False

    def check(self, process: Process, data: DataSpec) -> None:  # noqa: B027  (most accept all)
        """Refuses what it cannot be trained on, before anything is.

        Args:
            process: The forward process.
            data: What will be diffused.

        Raises:
            ValueError: If they do not fit.
        """

    def check_drawing(self, process: Process, step: Step, times: Tensor) -> None:  # noqa: B027
        """Refuses a sampler that its models cannot be drawn with.

        Args:
            process: The forward process.
            step: The sampler's step.
            times: The times that it visits, falling to 0.

        Raises:
            ValueError: If they do not fit.
        """

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


def x_0_error(
    denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
) -> Tensor:
    """Returns ‖x_0 − x̂_0‖², (B,), as c_out² ‖F* − F(x_t, t)‖², in which nothing is divided by σ."""
    process, parameterization = denoiser.process, denoiser.parameterization
    x_t = process.diffuse(x_0, t, eps)
    F, _ = denoiser.output(x_t, t, cond)
    _, c_out = parameterization.coefficients(process, t, x_t)
    error = (c_out * (parameterization.target(x_0, process, t, x_t) - F)).square()
    return error.flatten(1).mean(1)


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
        error = x_0_error(denoiser, x_0, cond, t, eps)
        return denoiser.process.snr(t, error).clamp(max=self.gamma) * error


class VLoss(Objective):
    """‖v − v̂‖², v = α ε − σ x_0, for any parameterisation (Salimans & Ho 2022, section 4).

    x̂_0 has ε̂ = (x_t − α x̂_0) / σ and v̂ = α ε̂ − σ x̂_0, so v − v̂ = −((α² + σ²) / σ) (x_0 − x̂_0),
    and the weight of ‖x_0 − x̂_0‖² is (α² + σ²)² / σ²: SNR + 1 where α² + σ² is 1. With `V` this is
    `Simple`; with `X0` it is the paper's x_0 with a loss in v.
    """

    regresses = True

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`."""
        error = x_0_error(denoiser, x_0, cond, t, eps)
        alpha, sigma = denoiser.process.scales(t, error)
        return ((alpha**2 + sigma**2) / sigma) ** 2 * error
