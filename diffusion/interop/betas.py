"""A process as β_1 … β_T, which is how other packages write one down."""

import torch
from torch import Tensor

from diffusion.interop.presets import Settings, node
from diffusion.process import Cosine, Linear, Process, ScaledLinear, Sigmoid

CLOSE = 1e-4  # relative: packages keep β_t in float32, and some compute it there


def betas(process: Process) -> Tensor:
    """Returns β_t = 1 − α_t² / α_{t−1}² of a variance-preserving process, (T,), float64.

    Raises:
        ValueError: If α_t² + σ_t² is not 1 throughout, so that there are no β_t.
    """
    if not torch.allclose(process.alpha**2 + process.sigma**2, torch.ones_like(process.alpha)):
        raise ValueError(
            f"process: {type(process).__name__} does not preserve the variance and so has no β_t; "
            "expected one with α_t² + σ_t² = 1"
        )
    return 1 - (process.alpha[1:] / process.alpha[:-1]) ** 2


def named_process(values: Tensor, exact: bool = False) -> Settings:
    """Returns the process with these β_1 … β_T, by its name if it is a known one.

    Args:
        values: β_t, (T,), float64.
        exact: Whether they are in float64, and not what another package made of theirs.
    """
    digits, close = (12, 1e-8) if exact else (9, CLOSE)
    first, last = (round(value, digits) for value in values[[0, -1]].tolist())
    T = {"T": len(values)}
    ends = {**T, "beta_1": first, "beta_T": last}
    for kind, arguments in {Linear: ends, ScaledLinear: ends, Cosine: T, Sigmoid: T}.items():
        if torch.allclose(betas(kind(**arguments)), values, rtol=close, atol=close / 1e4):
            return node(kind.__name__, **arguments)
    return node("Betas", betas=values.tolist())
