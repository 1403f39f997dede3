"""Averages of the trained weights: one to evaluate with, and snapshots for any other afterwards."""

from diffusion.systems.averages.ema import EMA as EMA, RAW as RAW, STEPS as STEPS
from diffusion.systems.averages.power import Power as Power
from diffusion.systems.averages.schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW
from diffusion.systems.averages.snapshots import Snapshots as Snapshots
