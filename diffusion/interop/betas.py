"""A process as β_1 … β_T, which is how other packages write one down."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.interop.presets import Settings, of
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


def named(values: Tensor) -> Settings:
    """Returns the process with these β_1 … β_T, by its name if it is a known one."""
    T, (first, last) = len(values), values[[0, -1]].tolist()
    ends = {"T": T, "beta_1": round(first, 9), "beta_T": round(last, 9)}
    known: dict[str, tuple[Callable[..., Process], dict[str, float]]] = {
        "Linear": (Linear, ends),
        "ScaledLinear": (ScaledLinear, ends),
        "Cosine": (Cosine, {"T": T}),
        "Sigmoid": (Sigmoid, {"T": T}),
    }
    for name, (kind, arguments) in known.items():
        if torch.allclose(betas(kind(**arguments)), values, rtol=CLOSE, atol=1e-8):
            return of(name, **arguments)
    return of("Betas", betas=values.tolist())
