"""Objectives: (denoiser, x_0, condition) → one loss per sample, and how often which t is drawn."""

from diffusion.objective.base import MinSNR, Objective, Simple
from diffusion.objective.distilled import Distilled, Teacher
from diffusion.objective.importance import ImportanceSampled
from diffusion.objective.logit_normal import LogitNormal
from diffusion.objective.variational import Hybrid, VariationalBound

__all__ = [
    "Distilled",
    "Hybrid",
    "ImportanceSampled",
    "LogitNormal",
    "MinSNR",
    "Objective",
    "Simple",
    "Teacher",
    "VariationalBound",
]
