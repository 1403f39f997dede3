# pyright: strict
"""What a guidance is: a function from a denoiser to a denoiser."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.process import Process, Variance
from diffusion.spec import Batch, DataSpec


class Guidance(ABC):
    """Wraps a denoiser into another one with the same interface.

    Attributes:
        needs: The conditions that it reads, whether or not the network knows them.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def forgets(self, null: Iterable[str]) -> list[str]:
        """Returns the conditions that the network is also asked about without.

        Args:
            null: The conditions that have a ∅.

        Raises:
            ValueError: If one that it would forget is none of them.
        """
        return []

    @property
    def hands_on(self) -> Sequence[str]:
        """The conditions that it gives the network."""
        return ()

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

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Returns conditions that it makes of a batch itself, of texts, say: (B, ...) each."""
        return {}

    def __call__(self, denoise: Denoiser) -> Denoiser:
        """Returns the guided denoiser."""
        return partial(self.guided, denoise)

    @abstractmethod
    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """Returns the guided prediction.

        Args:
            denoise: What is guided.
            x_t: As for `Denoiser`, like the following ones.
            t: The time.
            cond: The condition.
        """

    def lacks(self, what: str, expected: str, whose: str = "there is") -> ValueError:
        """Returns the error that something it needs is not there."""
        return ValueError(
            f"guidance: {type(self).__name__} needs {what}, {whose} none; expected {expected}, or "
            "a sampler without this guidance"
        )


class Scaled(Guidance):
    """A guidance with a scale s, between two times.

    Args:
        scale: s.
        interval: The times (first, last) between which it applies, ends included; None for all.

    Raises:
        ValueError: If the scale is not finite, or the interval is empty.
    """

    def __init__(self, scale: float, interval: tuple[int, int] | None = None) -> None:
        if not abs(scale) < float("inf"):
            raise ValueError(f"guidance.scale: {scale}; expected a finite number")
        if interval is not None and interval[0] > interval[1]:
            raise ValueError(f"guidance.interval: {interval}; expected first ≤ last")
        self.scale, self.interval = scale, interval
        self._device: torch.device | None = None

    def follow(self, x_t: Tensor) -> None:
        """Moves `networks` to x_t's device, once: a module of many parameters takes its time."""
        if self._device != x_t.device:
            for network in self.networks:
                network.to(x_t.device)
            self._device = x_t.device

    def applies(self, t: Tensor) -> Tensor:
        """Returns whether t lies in the interval, bool, t's shape."""
        first, last = self.interval or (-torch.inf, torch.inf)
        return (t >= first) & (t <= last)
