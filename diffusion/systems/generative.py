# pyright: strict
"""What draws samples: the contract that callbacks, metrics and `Pipeline` are written for."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.spec import Batch


class Generative(ABC):
    """What draws samples, beside `LightningModule` among a class's bases.

    A subclass writes `trajectory`, and says what it draws and what the samples depend on; callbacks
    draw, count, measure and write by these.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """One sample's shape: (C, H, W) for a picture, (D,) for a point or a vector."""

    @property
    @abstractmethod
    def moments(self) -> int:
        """How many tensors `trajectory` yields."""

    @property
    @abstractmethod
    def reads_labels(self) -> bool:
        """Whether samples depend on the batch's labels."""

    @property
    @abstractmethod
    def reads_anything(self) -> bool:
        """Whether samples depend on more than their seeds."""

    @abstractmethod
    def networks(self) -> dict[str, list[nn.Module]]:
        """Returns the networks whose evaluations are counted, by the name of the figure."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns all that samples depend on besides the batch and the seeds.

        Plain values and the objects themselves: "sampler", "network" and so on, or "stages", a list
        of such dictionaries.
        """

    @abstractmethod
    def trajectory(self, batch: Batch, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yields x at every time, from noise down to the samples; `decoded` shows what it is.

        Args:
            batch: What the B samples are asked to be, on this module's device.
            seeds: The number of each sample; the same number, request and settings give the same
                sample in any batch.
        """

    def decoded(self, x: Tensor) -> Tensor:
        """Returns what x of `trajectory` looks like as samples, (B, *shape)."""
        return x

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """Returns samples (B, *shape), in the data's range but not clamped to it.

        Arguments as for `trajectory`.
        """
        x = torch.empty(0)
        for x in self.trajectory(batch, seeds):  # noqa: B007
            pass
        return self.decoded(x)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the samples of the numbers batch["index"]."""
        return self.generate(batch, batch["index"].tolist())

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: B027
        """Nothing: callbacks measure the samples."""
