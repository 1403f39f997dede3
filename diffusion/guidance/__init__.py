"""Guidance: a function from a denoiser to a denoiser, so that a list of them composes."""

from abc import ABC, abstractmethod

from diffusion.denoiser import Denoiser


class Guidance(ABC):
    """Wraps a denoiser into another one with the same interface."""

    @abstractmethod
    def __call__(self, denoise: Denoiser) -> Denoiser:
        """Returns the guided denoiser."""


from diffusion.guidance.classifier_free import ClassifierFree  # noqa: E402  (they need Guidance)
from diffusion.guidance.threshold import Dynamic, Static  # noqa: E402

__all__ = ["ClassifierFree", "Dynamic", "Guidance", "Static"]
