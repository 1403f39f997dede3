"""Noise that depends on the sample and not on the batch it happens to be in."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seed(*key: int) -> int:
    """Returns a 63-bit seed that depends on all the numbers, none of them negative."""
    # A spawn key keeps (5,), (5, 0) and (5, 0, 0) apart, which plain entropy pads to the same.
    sequence = np.random.SeedSequence(key[0], spawn_key=key[1:])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


class SeededNoise:
    """Standard normal noise; sample number i's comes from a generator seeded by (seed, i).

    The same sample therefore gets the same noise at any batch size, on any number of processes and
    on any device: numbers are drawn on the CPU and then moved.

    Args:
        run: The seed of the whole run, not negative.
        indices: The number i of each sample of the batch.
    """

    def __init__(self, run: int, indices: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed(run, int(i))) for i in indices]

    def __call__(self, x: Tensor) -> Tensor:
        """Returns noise of x's shape, dtype and device; x has one row a sample."""
        rows = [torch.randn(x.shape[1:], generator=g) for g in self.generators]
        return torch.stack(rows).to(x, non_blocking=True)

    def draw(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Returns noise for samples of the given shape, (B, *shape), float32."""
        return self(torch.empty(len(self.generators), *shape, device=device))
