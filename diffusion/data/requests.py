"""What `predict` is asked to draw: numbered samples, each with its conditions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


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
    """0 .. n − 1 cut into batches; the last may be smaller."""
    return [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


def requested_classes(labels: list[int] | None, num_classes: int | None) -> list[int] | None:
    """The classes to ask for in turn: those wanted, or else all there are.

    Raises:
        ValueError: A label is not a class, or there are no classes.
    """
    if labels is None:
        return None if num_classes is None else list(range(num_classes))
    if num_classes is None:
        raise ValueError(f"data.labels: {labels}; expected null, as the data has no classes")
    if not labels or not all(0 <= label < num_classes for label in labels):
        raise ValueError(f"data.labels: {labels}; expected classes 0 .. {num_classes - 1}")
    return labels
