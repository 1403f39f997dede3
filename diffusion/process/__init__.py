# pyright: strict
"""Forward processes: q(x_t | x_0) for t = 0 … T, fixed or learned, of points or of bits."""

from diffusion.process.base import (
    Process as Process,
    Variance as Variance,
    VariancePreserving as VariancePreserving,
)
from diffusion.process.binomial import Binomial as Binomial
from diffusion.process.fixed import (
    Betas as Betas,
    Cosine as Cosine,
    Linear as Linear,
    RectifiedFlow as RectifiedFlow,
    ScaledLinear as ScaledLinear,
    Sigmoid as Sigmoid,
    Sohl2015 as Sohl2015,
    ZeroTerminal as ZeroTerminal,
)
from diffusion.process.learned import Learned as Learned
