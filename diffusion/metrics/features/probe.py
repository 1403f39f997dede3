"""What is fitted to fixed features: a few directions of them, and a linear classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

DECAY = 0.01
ROUNDS = 300


def principal(features: Tensor, size: int) -> tuple[Tensor, Tensor, float]:
    """Returns μ, the first eigenvectors of Σ, and their share of its trace.

    The signs are such that each vector's largest entry is positive.

    Args:
        features: (N, D).
        size: How many vectors D', 1 … D.

    Returns:
        (D,), (D, D') orthonormal, and a number 0 … 1.

    Raises:
        ValueError: If there are not more rows than vectors.
    """
    if size >= len(features):
        raise ValueError(
            f"features: {size} directions of {len(features)} images; expected fewer than images"
        )
    x = features.double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T.cov())
    values, vectors = values.flip(0), vectors.flip(1)[:, :size]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    share = (values[:size].sum() / values.sum()).item()
    return mean.float(), (vectors * largest.sign()).float(), share


def probe(
    features: Tensor, labels: Tensor, classes: int, decay: float = DECAY
) -> tuple[Tensor, Tensor]:
    """Returns W, b of min −mean log softmax(W z + b)_y + ½ decay ‖W‖², z the standardized features.

    The minimum is one point, found by L-BFGS, so that no seed or order decides. The scales of z
    are folded into W and b.

    Args:
        features: (N, D).
        labels: (N,), 0 … K − 1.
        classes: K.
        decay: The weight of the penalty.

    Returns:
        W, (K, D), and b, (K,).
    """
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    z = (features - mean) / scale
    weight = z.new_zeros(classes, z.shape[1], requires_grad=True)
    bias = z.new_zeros(classes, requires_grad=True)
    opt = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> float:
        opt.zero_grad()
        loss = F.cross_entropy(F.linear(z, weight, bias), labels)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()
        return loss.item()

    opt.step(closure)
    w = weight.detach() / scale
    return w, bias.detach() - w @ mean
