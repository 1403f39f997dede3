# pyright: strict
"""A schedule that is trained with the network (Sohl-Dickstein et al. 2015, section 2.4.1)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from diffusion.process.base import Process


class Learned(Process, nn.Module):
    """β_t = sigmoid(rate · θ_t + logit β⁰_t) for t = 2 … T, β_1 fixed; α_t² = ∏_{u ≤ t} (1 − β_u).

    θ is a parameter of the denoiser that has this process: optimized with the network, averaged,
    and in checkpoints. `VariationalBound` is the loss for it. Its noise is "frozen": ε is a
    constant, x_t = α_t x_0 + σ_t ε a function of θ, and the gradient of the bound in θ goes through
    x_t, the posterior, Σ and L_T. β_1 is small and fixed, as the paper has it, "to prevent
    overfitting"; the authors' code has β_1 = 0.001. For a model with the schedule as it was found,
    say a classifier that guides, `Betas` takes it as numbers.

    The tables are computed at each look-up, so that they are those of θ as it is.

    Args:
        process: β⁰, where θ = 0: any variance-preserving process.
        beta_1: β_1; by default that of β⁰.
        rate: So much faster a step of Adam moves logit β_t than a weight of the network.

    Raises:
        ValueError: If the process does not preserve variance or has a β_t of 1, β_1 is not in
            (0, 1), or the rate is not positive.
    """

    learned: ClassVar[bool] = True

    def __init__(self, process: Process, beta_1: float | None = None, rate: float = 1.0) -> None:
        nn.Module.__init__(self)
        alpha_bar = process.alpha.detach() ** 2
        betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
        preserves = torch.allclose(
            alpha_bar + process.sigma.detach() ** 2, torch.ones_like(alpha_bar)
        )
        if not preserves or not (betas < 1).all():
            raise ValueError(
                f"process.process: {type(process).__name__}; expected one with α² + σ² = 1 and "
                "β_T < 1, such as Sohl2015"
            )
        self.beta_1 = betas[0].item() if beta_1 is None else beta_1
        if not 0 < self.beta_1 < 1:
            raise ValueError(f"process.beta_1: {beta_1}; expected 0 < β_1 < 1")
        if not 0 < rate < float("inf"):
            raise ValueError(f"process.rate: {rate}; expected a positive number")
        self.rate, self._logits = rate, torch.logit(betas[1:])
        self.theta = nn.Parameter(torch.zeros(len(betas) - 1))

    @property
    def betas(self) -> Tensor:
        """β_1 … β_T, shape (T,), float64, on θ's device."""
        later = torch.sigmoid(self.rate * self.theta.double() + self._logits.to(self.theta.device))
        return torch.cat([later.new_tensor([self.beta_1]), later])

    def tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `Process`; θ gets gradients through them."""
        alpha_bar = torch.cumprod(1 - self.betas, 0).to(device)
        start = alpha_bar.new_zeros(1)  # apart, as the slope of a root at 0 is not finite
        alpha, sigma = torch.cat([start + 1, alpha_bar.sqrt()]), (1 - alpha_bar).sqrt()
        return alpha, torch.cat([start, sigma])

    @property
    def alpha(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """α_0 … α_T as they are now."""
        return self.tables(self.theta.device)[0]

    @property
    def sigma(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """σ_0 … σ_T as they are now."""
        return self.tables(self.theta.device)[1]

    @property
    def T(self) -> int:
        """See `Process`."""
        return len(self.theta) + 1

    def __getstate__(self) -> dict[str, object]:
        """There are no copies to leave behind."""
        return vars(self)
