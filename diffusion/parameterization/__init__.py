# pyright: strict
"""What the network's output means: x̂_0, and the reverse variance if it says that too."""

from diffusion.parameterization.base import Parameterization as Parameterization, check as check
from diffusion.parameterization.kernels import (
    Equilibrium as Equilibrium,
    LogOdds as LogOdds,
    Perturbed as Perturbed,
)
from diffusion.parameterization.lines import (
    X0 as X0,
    Eps as Eps,
    Mean as Mean,
    MeanShift as MeanShift,
    V as V,
    Velocity as Velocity,
)
