"""Forward processes: q(x_t | x_0) for t = 0 … T, fixed or learned, of points or of bits."""

from diffusion.process.base import Process, Variance, VariancePreserving
from diffusion.process.binomial import Binomial
from diffusion.process.fixed import (
    Betas,
    Cosine,
    Linear,
    RectifiedFlow,
    ScaledLinear,
    Sigmoid,
    Sohl2015,
    ZeroTerminal,
)
from diffusion.process.learned import Learned

__all__ = [
    "Betas",
    "Binomial",
    "Cosine",
    "Learned",
    "Linear",
    "Process",
    "RectifiedFlow",
    "ScaledLinear",
    "Sigmoid",
    "Sohl2015",
    "Variance",
    "VariancePreserving",
    "ZeroTerminal",
]
