"""Trained models, fixed: what guides and judges, and what other networks are built upon."""

from diffusion.systems.frozen.bases import (
    TrainedControl as TrainedControl,
    TrainedNetwork as TrainedNetwork,
)
from diffusion.systems.frozen.guides import (
    Frozen as Frozen,
    FrozenClip as FrozenClip,
    Trained as Trained,
    TrainedClip as TrainedClip,
    TrainedDenoiser as TrainedDenoiser,
    TrainedTeacher as TrainedTeacher,
)
from diffusion.systems.frozen.identities import (
    FrozenIdentity as FrozenIdentity,
    PublicIdentity as PublicIdentity,
    TrainedIdentity as TrainedIdentity,
)
