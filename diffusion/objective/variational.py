# pyright: strict
"""The bound on −log p(x_0) as a training objective, alone and beside L_simple."""

from torch import Tensor

from diffusion import bound
from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.objective.base import Objective
from diffusion.process import Variance


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
