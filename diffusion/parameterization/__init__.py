"""What the network's output means: x̂_0, and the reverse variance if it says that too."""

from diffusion.parameterization.base import Parameterization, check
from diffusion.parameterization.kernels import Equilibrium, LogOdds, Perturbed
from diffusion.parameterization.lines import X0, Eps, Mean, MeanShift, V, Velocity

__all__ = [
    "X0",
    "Eps",
    "Equilibrium",
    "LogOdds",
    "Mean",
    "MeanShift",
    "Parameterization",
    "Perturbed",
    "V",
    "Velocity",
    "check",
]
