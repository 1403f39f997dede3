"""Guidance: a function from a denoiser to a denoiser, so that a list of them composes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from diffusion.denoiser import Denoiser
from diffusion.process import Process, Variance
from diffusion.spec import DataSpec


class Guidance(ABC):
    """Wraps a denoiser into another one with the same interface.

    Attributes:
        needs: The conditions that it reads, whether or not the network knows them.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def forgets(self) -> bool:
        """Whether it also asks the network what it makes of ∅."""
        return False

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The networks that it evaluates, to be counted."""
        return ()

    def check(self, process: Process, data: DataSpec) -> None:  # noqa: B027  (most accept all)
        """Refuses what it cannot work with, before anything is sampled.

        Args:
            process: The process of the model that will be guided.
            data: What will be drawn.

        Raises:
            ValueError: If they do not fit.
        """

    def begin(self, process: Process, times: Tensor, ancestral: Variance | None) -> "Guidance":
        """Returns the guidance to use for one trajectory; one that looks at the grid a copy.

        Args:
            process: The forward process.
            times: The times visited, decreasing, 0 the last; int64, on the CPU.
            ancestral: Of the step; see `Step`.

        Raises:
            ValueError: If the guidance is not for such a step.
        """
        return self

    def read(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns conditions that it makes of a batch itself, of texts, say: (B, ...) each."""
        return {}

    @abstractmethod
    def __call__(self, denoise: Denoiser) -> Denoiser:
        """Returns the guided denoiser."""


from diffusion.guidance.classifier import (  # noqa: E402  (they need Guidance)
    Classifier,
    ClassifierMean,
    NoiseAware,
)
from diffusion.guidance.classifier_free import ClassifierFree  # noqa: E402
from diffusion.guidance.clip import Clip, TextScore  # noqa: E402
from diffusion.guidance.gradient import Gradient  # noqa: E402
from diffusion.guidance.inpaint import Inpaint  # noqa: E402
from diffusion.guidance.threshold import Dynamic, Static  # noqa: E402

__all__ = [
    "Classifier",
    "ClassifierFree",
    "ClassifierMean",
    "Clip",
    "Dynamic",
    "Gradient",
    "Guidance",
    "Inpaint",
    "NoiseAware",
    "Static",
    "TextScore",
]
