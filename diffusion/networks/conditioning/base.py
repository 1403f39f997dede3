# pyright: strict
"""Conditioners: how one condition goes from a batch into a network."""

from abc import ABC
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import ClassVar

from torch import Tensor, nn

from diffusion.spec import Batch


class Conditioner(nn.Module, ABC):
    """One condition of a network: the tensors it is made of, how a batch becomes them, and its ∅.

    A network has any number of them. What it does with their tensors is its own affair: it joins
    `planes` to x_t, adds a vector to the embedding of the time, lets attention read tokens.

    Attributes:
        keys: Names of the tensors, each (B, ...).
        required: Those of them that are part of the task, and never forgotten.
        starts_at_zero: Whether the weights of `planes` start at zero, so that a network with the
            weights of one without this condition starts as that one.
    """

    keys: tuple[str, ...]
    required: tuple[str, ...] = ()
    starts_at_zero: ClassVar[bool] = False

    @property
    def null(self) -> Mapping[str, float | Tensor]:
        """∅ by key, for one sample, of those that can be forgotten."""
        return {}

    def channels(self, image: int) -> int:
        """Returns how many channels are joined to an image of so many."""
        return 0

    def planes(self, x_t: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Returns the channels that are joined to x_t, of its size.

        Args:
            x_t: Images (B, C, H, W).
            values: The network's conditions.
        """
        raise NotImplementedError(f"{type(self).__name__} joins no channels to an image")

    def read(self, batch: Batch, train: bool) -> dict[str, Tensor]:
        """Returns those of the tensors that a batch has, or that can be made of it.

        Args:
            batch: "image" if there is one to learn from; "noise", the samples' `SeededNoise`, to
                draw by; and whatever it conditions on.
            train: Whether it is for a training step.
        """
        return {k: batch[k] for k in self.keys if isinstance(batch.get(k), Tensor)}

    def resized(self, batch: Batch, size: tuple[int, int]) -> Batch:
        """Returns a batch for images of another size (H, W)."""
        return batch


def distinct(conditioners: Sequence[Conditioner]) -> tuple[Conditioner, ...]:
    """Returns the conditioners, none of which can be taken for a part of another.

    Raises:
        ValueError: If two have a key in common, or one's key begins like a part of another's.
    """
    every = [(key, number) for number, one in enumerate(conditioners) for key in one.keys]
    for (key, mine), (other, its) in permutations(every, 2):
        if its != mine and (other == key or other.startswith(f"{key}_")):
            raise ValueError(
                f"network: conditions '{key}' and '{other}'; expected names of which none is the "
                "other's, or a part of it"
            )
    return tuple(conditioners)
