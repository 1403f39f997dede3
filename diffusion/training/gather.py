"""Rows of all processes."""

from typing import Any

import torch
from torch import Tensor


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
