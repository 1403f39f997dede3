"""What several processes do together: one works first, and rows of all are gathered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor


@contextmanager
def one_first(trainer: L.Trainer | None, name: str) -> Iterator[None]:
    """Runs a block in one process of each machine, then in the others, which find its files.

    Args:
        trainer: The processes'; None for this one alone.
        name: What is waited for.
    """
    if trainer and trainer.local_rank:
        trainer.strategy.barrier(name)
    yield
    if trainer and not trainer.local_rank:
        trainer.strategy.barrier(name)


def rows(strategy: Any, x: Tensor) -> Tensor:
    """Returns the rows of all processes, the first process's first, on the CPU.

    Args:
        strategy: The Trainer's.
        x: This process's, (n, ...); the n of other processes may be another.
    """
    counts = strategy.all_gather(torch.tensor(len(x), device=x.device)).reshape(-1).tolist()
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    every = strategy.all_gather(padded).reshape(len(counts), *padded.shape).cpu()
    return torch.cat([part[:n] for part, n in zip(every, counts)])
