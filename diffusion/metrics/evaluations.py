"""How often a network was evaluated, counted and not computed from the sampler's settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Evaluations:
    """Counts the rows that a network's calls evaluate.

    So a batch of 2B for classifier-free guidance counts 2 an image, and a step of second order, or
    an interval in which guidance is off, counts what it does.

    Attributes:
        rows: The sum of the batch sizes of all calls.
    """

    def __init__(self) -> None:
        self.rows = 0

    @contextmanager
    def counting(self, network: nn.Module) -> Iterator[None]:
        """Counts the calls of a network while the block runs."""
        handle = network.register_forward_hook(self._add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, network: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        first = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        self.rows += len(first)
