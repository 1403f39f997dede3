# pyright: strict
"""Objectives: (denoiser, x_0, condition) → one loss per sample, and how often which t is drawn."""

from diffusion.objective.base import (
    MinSNR as MinSNR,
    Objective as Objective,
    Simple as Simple,
    VLoss as VLoss,
)
from diffusion.objective.distilled import Distilled as Distilled, Teacher as Teacher
from diffusion.objective.importance import ImportanceSampled as ImportanceSampled
from diffusion.objective.logit_normal import LogitNormal as LogitNormal
from diffusion.objective.variational import Hybrid as Hybrid, VariationalBound as VariationalBound
