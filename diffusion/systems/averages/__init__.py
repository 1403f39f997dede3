"""Averages of the trained weights: one to evaluate with, and snapshots for any other afterwards."""

from diffusion.systems.averages.ema import EMA, RAW, STEPS
from diffusion.systems.averages.power import Power
from diffusion.systems.averages.snapshots import Snapshots

__all__ = ["EMA", "RAW", "STEPS", "Power", "Snapshots"]
