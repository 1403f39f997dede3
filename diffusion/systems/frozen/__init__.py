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
from diffusion.systems.frozen.identities import FrozenIdentity, PublicIdentity, TrainedIdentity

__all__ = [
    "Frozen",
    "FrozenClip",
    "FrozenIdentity",
    "PublicIdentity",
    "Trained",
    "TrainedClip",
    "TrainedControl",
    "TrainedDenoiser",
    "TrainedIdentity",
    "TrainedNetwork",
    "TrainedTeacher",
]
