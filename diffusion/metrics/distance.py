"""Distances between two sets of features, and the Inception score.

The formulas are torch-fidelity's, without its input pipeline.
"""

from torch import Tensor


def frechet(f: Tensor, g: Tensor) -> float:
    """Returns ‖μ_f − μ_g‖² + tr(Σ_f + Σ_g − 2(Σ_f Σ_g)^½).

    The Fréchet distance of two Gaussians; with Inception's features it is FID (Heusel et al. 2017,
    arXiv:1706.08500). Its bias falls as 1/n: compare only at the same number of images. Computed
    in float64 from the eigenvalues of Σ_f Σ_g, so that Σ may be singular.

    Args:
        f: Features (N, D), N ≥ 2.
        g: Features (M, D), M ≥ 2.

    Raises:
        ValueError: If there are fewer than two rows or D differs.
    """
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    _check("frechet", f, g)
    statistics = [fid_features_to_statistics(x.double().cpu()) for x in (f, g)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def kernel(f: Tensor, g: Tensor, subsets: int = 100, seed: int = 0) -> float:
    """Returns the mean over subsets of the unbiased MMD² with k(a, b) = (a·b/D + 1)³.

    With Inception's features it is KID (Bińkowski et al. 2018, arXiv:1801.01401). It may be
    slightly negative, and its mean does not depend on the number of images.

    Args:
        f: Features (N, D), N ≥ 2.
        g: Features (M, D), M ≥ 2.
        subsets: How many random subsets of min(1000, N, M) rows; one if they are all rows.
        seed: Seed of the choice.

    Raises:
        ValueError: If there are fewer than two rows or D differs.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    _check("kernel", f, g)
    size = min(1000, len(f), len(g))
    settings = {
        "kid_subsets": 1 if size == len(f) == len(g) else subsets,
        "kid_subset_size": size,
        "rng_seed": seed,
        "verbose": False,
    }
    return kid_features_to_metric(f.double(), g.double(), **settings)[KEY_METRIC_KID_MEAN]


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """Returns mean and standard deviation over splits of exp E_x KL(p(y|x) ‖ p(y)).

    Salimans et al. 2016, arXiv:1606.03498.

    Args:
        logits: Class logits (N, K).
        splits: Number of parts that p(y) is averaged in; at most N.
        seed: Seed of the shuffling before.

    Raises:
        ValueError: If there are fewer images than splits.
    """
    from torch_fidelity.metric_isc import (
        KEY_METRIC_ISC_MEAN,
        KEY_METRIC_ISC_STD,
        isc_features_to_metric,
    )

    if not 1 <= splits <= len(logits):
        raise ValueError(f"inception_score: splits {splits}, expected 1 to {len(logits)}")
    out = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return out[KEY_METRIC_ISC_MEAN], out[KEY_METRIC_ISC_STD]


def _check(name: str, f: Tensor, g: Tensor) -> None:
    if f.ndim != 2 or g.ndim != 2 or f.shape[1] != g.shape[1] or min(len(f), len(g)) < 2:
        raise ValueError(
            f"{name}: features {tuple(f.shape)} and {tuple(g.shape)}, "
            "expected (N, D) and (M, D) with N, M ≥ 2"
        )
