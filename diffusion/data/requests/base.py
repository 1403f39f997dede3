"""What samples are asked to be, by their numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar


class Ask(ABC):
    """One thing that samples are asked to be, or to start from.

    Attributes:
        argument: The argument of the data that it comes from, under which its digest is noted.
        keys: What it adds to a batch.
    """

    argument: ClassVar[str]
    keys: tuple[str, ...]

    @abstractmethod
    def ask(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Returns the values of `keys` for the samples of these B numbers, on the CPU."""

    @abstractmethod
    def digest(self) -> str:
        """Returns a text that changes with what any sample is asked to be."""


class Requests:
    """Batches for the samples 0 .. samples − 1, as `request` describes them.

    Batch k goes to process k mod world, so the batches are the same for any number of processes. A
    batch with nothing left to do is skipped.

    Args:
        samples: Number of samples.
        batch_size: Samples in a batch.
        request: From the numbers of some samples to a batch.
        done: Samples that exist already.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        request: Callable[[Sequence[int]], dict[str, Any]],
        done: set[int] | frozenset[int] = frozenset(),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        batches = in_order(samples, batch_size)[rank::world]
        self.batches = [batch for batch in batches if not done.issuperset(batch)]
        self.request = request

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.request, self.batches)


def in_order(n: int, batch_size: int) -> list[range]:
    """Returns 0 .. n − 1 in batches; the last may be smaller."""
    return [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


def spread(n: int, total: int, batch_size: int) -> list[list[int]]:
    """Returns n of 0 … total − 1, evenly spaced and in order, in batches; all if n is larger."""
    n = min(n, total)
    return [[i * total // n for i in batch] for batch in in_order(n, batch_size)]
