"""Classes to ask for: those wanted, in turn, or as often as pictures have them."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffusion.data.requests.base import Ask


@dataclass
class Labels(Ask):
    """Sample i has the class numbers[i mod n]: "label", int64 (B,)."""

    argument, keys = "labels", ("label",)

    numbers: list[int]

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the labels."""
        return {"label": torch.tensor([self.numbers[i % len(self.numbers)] for i in numbers])}

    def digest(self) -> str:
        """Returns the numbers of the classes."""
        n = len(self.numbers)
        whole = n > 1 and self.numbers == list(range(n))
        return f"0 … {n - 1}" if whole else ", ".join(map(str, self.numbers))


def requested_classes(
    labels: Sequence[str | int] | None, num_classes: int | None, classes: Sequence[str] = ()
) -> list[int] | None:
    """Returns the numbers of the classes to ask for in turn: those wanted, or else all there are.

    Args:
        labels: The classes wanted, by number or name.
        num_classes: How many there are, None without classes.
        classes: Their names, if they have some.

    Raises:
        ValueError: If a label is not a class, or may be two, or there are no classes.
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
    """Returns the number of a class that was asked for by name or number."""
    named = numbers.get(str(label))
    if isinstance(label, str):
        if named is not None:
            return named
        if near := difflib.get_close_matches(label, numbers, n=1):
            raise ValueError(f"data.labels: {label}; the nearest is '{near[0]}'")
    elif 0 <= label < num_classes:
        if named in (None, label):
            return label
        raise ValueError(
            f"data.labels: {label} is the number of one class and the name of another; "
            f"expected a name in quotes, such as '[\"{label}\"]'"
        )
    names = f", or names such as '{next(iter(numbers))}'" if numbers else ""
    raise ValueError(f"data.labels: {label}; expected classes 0 .. {num_classes - 1}{names}")


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
    share = np.array(counts, dtype=np.int64)
    period, had, turns = share.sum(), np.zeros_like(share), np.empty(n, dtype=np.int64)
    for i in range(n):
        due = -(-(had + 1) * period // np.maximum(share, 1))
        due[had * period >= (i + 1) * share] = np.iinfo(np.int64).max
        turns[i] = chosen = due.argmin()
        had[chosen] += 1
    return turns
