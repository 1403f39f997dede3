# pyright: strict
"""Diffusion models from 2015 to today under one interface.

Seven concepts, one file each: `Process`, `Parameterization`, `Condition`, `Denoiser`, `Guidance`,
`Step` with `Sampler`, and `Objective`. A method of the literature is a YAML file that combines
them.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports `Pipeline` where it is asked for: the package itself loads nothing."""
    if name == "Pipeline":
        from diffusion.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"diffusion.{name}; expected Pipeline, or a module of this package")
