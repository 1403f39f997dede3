# pyright: strict
"""Steps: one reverse transition, x_t → x_s for any s < t."""

from diffusion.step.base import Step as Step
from diffusion.step.bernoulli import Bernoulli as Bernoulli
from diffusion.step.ddim import DDIM as DDIM, DDPM as DDPM
from diffusion.step.dpm_solver import DPMSolver as DPMSolver
from diffusion.step.heun import Heun as Heun
from diffusion.step.repaint import RePaint as RePaint
from diffusion.step.unipc import UniPC as UniPC
