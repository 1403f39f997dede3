"""Steps: one reverse transition, x_t → x_s for any s < t."""

from diffusion.step.base import Step
from diffusion.step.bernoulli import Bernoulli
from diffusion.step.ddim import DDIM, DDPM
from diffusion.step.dpm_solver import DPMSolver
from diffusion.step.heun import Heun
from diffusion.step.repaint import RePaint
from diffusion.step.unipc import UniPC

__all__ = ["DDIM", "DDPM", "Bernoulli", "DPMSolver", "Heun", "RePaint", "Step", "UniPC"]
