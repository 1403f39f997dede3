"""Trained models, fixed: what guides and judges, and what other networks are built upon."""

from diffusion.systems.frozen.bases import TrainedControl, TrainedNetwork
from diffusion.systems.frozen.guides import (
    Frozen,
    FrozenClip,
    Trained,
    TrainedClip,
    TrainedDenoiser,
    TrainedTeacher,
)

__all__ = [
    "Frozen",
    "FrozenClip",
    "Trained",
    "TrainedClip",
    "TrainedControl",
    "TrainedDenoiser",
    "TrainedNetwork",
    "TrainedTeacher",
]
