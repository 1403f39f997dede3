# pyright: strict
"""Averages whose length grows with the training (Karras et al. 2024, section 3.1).

From https://arxiv.org/abs/2312.02696. The power-function average of the weights θ(τ) up to t is

    θ̂_γ(t) = (γ + 1) / t^{γ+1} ∫_0^t τ^γ θ(τ) dτ,

a mean under the density p(τ) = (γ + 1) τ^γ / t^{γ+1} on [0, t]. Its moments are E[τ] = t (γ + 1) /
(γ + 2) and E[τ²] = t² (γ + 1) / (γ + 3), so that its standard deviation, in units of t, is

    σ_rel = √((γ + 1) / ((γ + 2)² (γ + 3)))

at any t: of an average of σ_rel = 0.1, five sixths are always of the training's last fifth.
"""

import numpy as np

WIDEST = 12**-0.5  # σ_rel of γ = 0, the mean of all weights


class Power:
    """The rate of `EMA` that makes it θ̂_γ: d = (1 − 1/n)^{γ+1} at the n-th update.

    With θ(τ) = θ_n for n − 1 < τ ≤ n this is the integral itself, without an error: θ_n has the
    weight (n^{γ+1} − (n − 1)^{γ+1}) / N^{γ+1} after N updates. Initial weights have none.

    Args:
        width: σ_rel; 0.05 and 0.1 are the paper's for snapshots.

    Raises:
        ValueError: If it is not in (0, 1/√12].
    """

    def __init__(self, width: float) -> None:
        self.width, self.gamma = width, gamma_of(width)

    def __call__(self, n: int) -> float:
        """Returns d of the n-th update, n ≥ 1."""
        return (1 - 1 / n) ** (self.gamma + 1)


def width_of(gamma: float) -> float:
    """Returns σ_rel of γ > −1."""
    return ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5


def gamma_of(width: float) -> float:
    """Returns γ ≥ 0 of σ_rel: (γ + 2)² (γ + 3) = (γ + 1) / σ_rel², a cubic with one such root.

    Raises:
        ValueError: If σ_rel is not in (0, 1/√12].
    """
    if not 0 < width <= WIDEST + 1e-12:
        raise ValueError(f"width: {width}; expected σ_rel above 0 and at most {WIDEST:.4f}")
    k = width**-2
    return max(0.0, float(np.roots([1, 7, 16 - k, 12 - k]).real.max()))
