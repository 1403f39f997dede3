"""What `predict` is asked to draw: numbered samples, each with its conditions."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np


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


def spread(n: int, total: int, batch_size: int) -> list[list[int]]:
    """Returns n of 0 … total − 1, evenly spaced and in order, in batches; all if n is larger."""
    n = min(n, total)
    return [[i * total // n for i in batch] for batch in in_order(n, batch_size)]


def requested_classes(
    labels: Sequence[str | int] | None, num_classes: int | None, classes: Sequence[str] = ()
) -> list[int] | None:
    """The numbers of the classes to ask for in turn: those wanted, or else all there are.

    Args:
        labels: The classes wanted, by number or name.
        num_classes: How many there are, None without classes.
        classes: Their names, if they have some.

    Raises:
        ValueError: A label is not a class, or may be two, or there are no classes.
    """
    if labels is None:
        return None if num_classes is None else list(range(num_classes))
    if num_classes is None:
        raise ValueError(f"data.labels: {labels}; expected null, as the data has no classes")
    if not labels:
        raise ValueError(f"data.labels: []; expected null or classes 0 .. {num_classes - 1}")
    numbers = {name: k for k, name in enumerate(classes)}
    return [_number(label, num_classes, numbers) for label in labels]


def _number(label: str | int, num_classes: int, numbers: dict[str, int]) -> int:
    """The number of a class that was asked for by name or number."""
    named = numbers.get(str(label))
    if isinstance(label, str) and named is not None:
        return named
    if isinstance(label, int) and 0 <= label < num_classes:
        if named not in (None, label):
            raise ValueError(
                f"data.labels: {label} is the number of one class and the name of another; "
                f"expected a name in quotes, such as '[\"{label}\"]'"
            )
        return label
    near = [] if isinstance(label, int) else difflib.get_close_matches(label, numbers, n=1)
    if near:
        raise ValueError(f"data.labels: {label}; the nearest is '{near[0]}'")
    named = f", or names such as '{next(iter(numbers))}'" if numbers else ""
    raise ValueError(f"data.labels: {label}; expected classes 0 .. {num_classes - 1}{named}")


def is_even(counts: Sequence[int]) -> bool:
    """Whether classes differ in number no more than chance would have it.

    That is Σ_c (N_c − N/K)² / (N/K) ≤ K − 1, the expectation of this sum where N pictures have one
    of K equally likely classes each.

    Args:
        counts: N_c, the pictures of each class.
    """
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) <= mean * (len(counts) - 1)


def apportioned(counts: Sequence[int], numbers: Sequence[int]) -> list[int]:
    """Returns the classes of samples, by their numbers, so that each comes as often as it should.

    Of the samples 0 … n − 1, class c has n N_c / N to within 1, for every n: in each turn, of the
    classes that are not ahead of their share, it is the one whose next turn is due first (Tijdeman
    1980, "The chairman assignment problem"). Equal counts give 0 … K − 1 in turn.

    Args:
        counts: N_c, how often each class comes in N = Σ_c N_c turns, at least one above 0.
        numbers: The numbers of the samples, from 0.
    """
    period = sum(counts)
    places = np.asarray(numbers, dtype=np.int64) % period
    most = 1 << int(places.max(initial=0) + 1).bit_length()  # few lengths, so that few are made
    return _turns(tuple(counts), min(period, most))[places].tolist()


@lru_cache(maxsize=8)
def _turns(counts: tuple[int, ...], n: int) -> np.ndarray:
    """Returns the classes of the first n turns."""
    classes = np.flatnonzero(counts)
    share = np.array(counts, dtype=np.int64)[classes]
    period, had = int(share.sum()), np.zeros_like(share)
    turns = np.empty(n, dtype=np.int64)
    for i in range(n):
        due = -(-(had + 1) * period // share)
        due[had * period >= (i + 1) * share] = np.iinfo(np.int64).max
        turns[i] = chosen = due.argmin()
        had[chosen] += 1
    return classes[turns]
