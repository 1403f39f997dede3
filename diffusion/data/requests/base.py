# pyright: strict
"""What samples are asked to be, by their numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffusion.spec import Batch


class Ask(ABC):
    """One thing that samples are asked to be, or to start from.

    Attributes:
        argument: The argument of the data that it comes from, under which its digest is noted.
        keys: What it adds to a batch.
    """

    argument: ClassVar[str]
    keys: tuple[str, ...]

    @abstractmethod
    def ask(self, numbers: Sequence[int]) -> Batch:
        """Returns the values of `keys` for the samples of these B numbers, on the CPU."""

    def start(self, batch: Batch) -> Batch:
        """Returns the values of `keys` for a batch of requests, on the CPU."""
        return self.ask(batch["index"].tolist())

    @abstractmethod
    def digest(self) -> str:
        """Returns a text that changes with what any sample is asked to be."""


@dataclass
class Requests:
    """Batches of requests, made one by one as they are read; Lightning takes them as they are.

    Args:
        batches: The numbers of the samples of each.
        request: From these to a batch.
    """

    batches: Sequence[Sequence[int]]
    request: Callable[[Sequence[int]], Batch]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.request, self.batches)


def in_order(n: int, batch_size: int) -> list[range]:
    """Returns 0 .. n − 1 in batches; the last may be smaller."""
    return [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


def spread(n: int, total: int, batch_size: int) -> list[list[int]]:
    """Returns n of 0 … total − 1, evenly spaced and in order, in batches; all if n is larger."""
    n = min(n, total)
    return [[i * total // n for i in batch] for batch in in_order(n, batch_size)]
