"""Fidelity and variety, told apart: whose neighbourhood does a feature vector lie in?

B(x, X) is the ball around a row x of X that reaches to its k-th nearest neighbour in X, x itself
not counted; a set's manifold is the union of its balls. As in the published codes the balls are
closed for precision and recall (Kynkäänniemi et al., ADM's evaluator), and open for density and
coverage (Naeem et al.): a copy of that neighbour lies in the one and not in the other.
"""

import torch
from torch import Tensor

from diffusion.metrics.neighbours import where_exact

CHUNK = 2**24  # distances in memory at once


def precision_recall(generated: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Returns the share of generated rows in the real manifold, and of real rows in the generated.

    Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2), by
    torch-fidelity. Exchanging the two sets exchanges the two numbers.

    Args:
        generated: Features (M, D), M > k.
        real: Features (N, D), N > k; the distances are computed on their device.
        k: Which neighbour the balls reach to.

    Raises:
        ValueError: If k is not in 1 … min(M, N) − 1, or D differs.
    """
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    check_features("precision_recall", generated, real, 1)
    _check_k("precision_recall", k, min(len(generated), len(real)))
    size = max(1, CHUNK // max(len(generated), len(real)))
    p, r = calculate_precision_recall_part(generated.to(real), real, k, size)
    m, n = len(generated), len(real)
    return round(p * m) / m, round(r * n) / n  # theirs are float32


def f1(precision: float, recall: float) -> float:
    """Returns 2PR/(P + R), and 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def density_coverage(generated: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Returns 1/(kM) Σ_j Σ_i 1[y_j ∈ B(x_i, X)] and 1/N Σ_i 1[∃j: y_j ∈ B(x_i, X)].

    Density and coverage (Naeem et al. 2020, arXiv:2002.09797, eq. 4 and 5), with open balls.
    Only real rows have balls, so one generated outlier adds nothing. If both sets have
    one distribution, the expectation of the density is 1, that of the coverage is
    1 − Π_{i=0}^{k−1} (N − 1 − i)/(M + N − 1 − i) (lemma 2).

    Args:
        generated: y, features (M, D).
        real: x, features (N, D), N > k; the distances are computed on their device.
        k: Which neighbour the balls reach to.

    Raises:
        ValueError: If k is not in 1 … N − 1, or D differs.
    """
    check_features("density_coverage", generated, real, 1)
    _check_k("density_coverage", k, len(real))
    real = where_exact(real)
    generated = generated.to(real)
    hits = covered = torch.zeros((), device=real.device, dtype=torch.int64)
    for x in real.split(max(1, CHUNK // max(len(generated), len(real)))):
        radius = _distances(x, real).topk(k + 1, largest=False).values[:, -1:]
        inside = _distances(x, generated) < radius
        hits, covered = hits + inside.sum(), covered + inside.any(1).sum()
    return hits.item() / (k * len(generated)), covered.item() / len(real)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Returns ‖x_i − y_j‖ as float32 of float64, so that copies have equal ones, and 0 is 0."""
    x, y = x.double(), y.double()
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    squares = norms - 2 * x @ y.T
    return torch.where(squares > 1e-12 * norms, squares, 0).sqrt().float()


def check_features(name: str, f: Tensor, g: Tensor, least: int = 2) -> None:
    """Refuses what are not enough features of two sets of images.

    Raises:
        ValueError: If one has less than `least` rows or D differs.
    """
    if f.ndim != 2 or g.ndim != 2 or f.shape[1] != g.shape[1] or min(len(f), len(g)) < least:
        raise ValueError(
            f"{name}: features {tuple(f.shape)} and {tuple(g.shape)}; "
            f"expected (N, D) and (M, D) with N, M ≥ {least}"
        )


def _check_k(name: str, k: int, fewest: int) -> None:
    """Refuses a neighbour that is not among `fewest` rows besides the row itself."""
    if not 1 <= k < fewest:
        raise ValueError(f"{name}.k: {k}; expected 1 … {fewest - 1}, less than the {fewest} rows")
