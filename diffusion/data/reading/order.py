"""Endless shuffled sampling by position, so that a resumed run reads what it would have read.

Training reads the positions p = 0, 1, 2, … of one endless sequence. With N pictures, position p
lies in epoch p // N and shows picture π(p mod N), where the permutation π and the coin that
decides a flip are drawn from (seed, epoch) alone. A run that continues at position p therefore
needs no state of any sampler, worker or generator.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from diffusion.data.sets import ImageSet
from diffusion.spec import Batch


@dataclass
class Reading:
    """How many positions training has read, over all processes, as far as steps are complete.

    What the micro-batches of an unfinished optimizer step have read does not count: a run that
    goes on begins that step anew. What is read ahead does not count either.

    Args:
        complete: How many a run that goes on has read.
        begun: How many the unfinished step has read.
        step: Its number.
    """

    complete: int = 0
    begun: int = 0
    step: int = -1

    def take(self, positions: int, step: int) -> None:
        """Counts what is about to be trained on, after so many complete optimizer steps."""
        self.upto(step)
        self.begun += positions

    def upto(self, step: int) -> int:
        """Returns how many positions all steps have read, now that so many are complete."""
        if step != self.step:
            self.complete, self.begun, self.step = self.complete + self.begun, 0, step
        return self.complete


@dataclass(eq=False)
class Positions(Sampler[list[int]]):
    """Batches of the positions start + rank, start + rank + world, … without end.

    Batch b of all ranks together holds the world · batch_size positions that one process with
    that batch size would take.

    Args:
        start: Gives the first position; asked anew at every iteration.
        batch_size: Positions in a batch of this process.
        rank: Number of this process.
        world: Number of processes.
        epoch: How many batches a trainer should take for an epoch; None for no epochs.
        period: After so many positions they begin again at 0; None for never.
    """

    start: Callable[[], int]
    batch_size: int
    rank: int
    world: int
    epoch: int | None = None
    period: int | None = None

    def __iter__(self) -> Iterator[list[int]]:
        first, stride = self.start(), self.batch_size * self.world
        while True:
            batch = range(first + self.rank, first + stride, self.world)
            yield [p % self.period for p in batch] if self.period else list(batch)
            first += stride

    def __len__(self) -> int:
        if self.epoch is None:
            raise TypeError("batches without end have no length")
        return self.epoch


class Shuffled(Dataset[Batch]):
    """The endless shuffled sequence over a set, read by position.

    Args:
        pictures: The set, with N pictures.
        seed: Decides the permutations, the flips and the crops.
        flip: Mirror half of the positions left to right, with all (B, c, H, W) that they have, and
            say which: "mirrored" (B,), 0 or 1.
        crop: Side of the squares that are cut out of all these maps; None for the whole.
        grid: What the squares' corners are multiples of.

    Raises:
        ValueError: If the set is empty.
    """

    def __init__(
        self, pictures: ImageSet, seed: int, flip: bool, crop: int | None = None, grid: int = 1
    ) -> None:
        if len(pictures) == 0:
            raise ValueError("data: no picture to train on; expected at least 1")
        self.pictures, self.seed, self.flip = pictures, seed, flip
        self.crop, self.grid = crop, grid

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        n = len(self.pictures)
        epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), n)
        indices, heads = np.empty_like(places), np.empty(len(places), dtype=bool)
        corners = np.empty((len(places), 2))
        for number in np.unique(epochs):
            here = epochs == number
            order, coins, cuts = permutation(self.seed, int(number), n)
            indices[here], heads[here] = order[places[here]], coins[places[here]]
            corners[here] = cuts[places[here]]
        batch = self.pictures.visit(indices.tolist(), epochs.tolist())
        maps = {k: x for k, x in batch.items() if isinstance(x, torch.Tensor) and x.ndim == 4}
        if self.crop is not None:
            maps = {k: squares(x, corners, self.crop, self.grid) for k, x in maps.items()}
        if self.flip:
            mirrored = torch.from_numpy(heads)[:, None, None, None]
            maps = {k: torch.where(mirrored, x.flip(-1), x) for k, x in maps.items()}
            return {**batch, **maps, "mirrored": mirrored.flatten().float()}
        return {**batch, **maps}


def squares(maps: Tensor, corners: np.ndarray, side: int, grid: int) -> Tensor:
    """Returns a square of each map, (B, c, side, side), at multiples of `grid`.

    Args:
        maps: (B, c, H, W).
        corners: (B, 2) in [0, 1): where each square is, in parts of the places that there are.
        side: Of the squares, at most H and W.
        grid: Places are so many positions apart.
    """
    room = (np.array(maps.shape[2:]) - side) // grid + 1
    places = (corners * room).astype(int) * grid
    return torch.stack([x[:, i : i + side, j : j + side] for x, (i, j) in zip(maps, places)])


@lru_cache(maxsize=2)  # a batch can span the end of an epoch
def permutation(seed: int, epoch: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns an epoch's order, int64 (n,), whether to mirror, bool (n,), and corners (n, 2)."""
    # RandomState, because NumPy promises that its stream never changes.
    random = np.random.RandomState([seed, epoch])
    return random.permutation(n), random.random_sample(n) < 0.5, random.random_sample((n, 2))


def epoch(trainer: Any, pictures: int, batch: int) -> int | None:
    """Returns the batches of a pass over the training set in whole optimizer steps.

    None where nothing asks for epochs: then there is no last step of fewer batches than the others.

    Args:
        trainer: Lightning's, or None.
        pictures: In the training set.
        batch: Pictures in a batch of all processes.
    """
    if trainer is None or not (
        trainer.max_epochs != -1
        or trainer.min_epochs
        or trainer.check_val_every_n_epoch is not None
        or trainer.overfit_batches > 0
        or trainer.limit_train_batches not in (1.0, int(trainer.limit_train_batches))
    ):
        return None
    accumulated = trainer.accumulate_grad_batches
    return max(pictures // (batch * accumulated), 1) * accumulated
