"""Diffusion models from 2015 to today under one interface.

Seven concepts, one file each: `Process`, `Parameterization`, `Condition`, `Denoiser`, `Guidance`,
`Step` with `Sampler`, and `Objective`. A method of the literature is a YAML file that combines
them.
"""

__version__ = "0.1.0"
