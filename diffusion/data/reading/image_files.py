"""Pictures in files, decoded when they are asked for."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data.reading.decoding import read_picture
from diffusion.data.sets import Annotated
from diffusion.spec import Batch

READING = 2  # to be raised when `read_picture` gives other pixels than before


@dataclass
class Files(Annotated):
    """Picture files of one folder as squares of one size.

    A file that turns out to be unreadable is replaced by the next readable one, so that a run
    goes on and gives the same batches every time.

    Args:
        root: The folder.
        names: Paths of the files relative to it.
        labels: A class for each, int64, or None.
        size: Height and width of the squares.
        channels: 1 for grey, 3 for colour.
        max_unreadable: Share of the files that may be unreadable.
        texts: The captions of each, or None.
    """

    root: Path
    names: list[str]
    labels: Tensor | None
    size: int
    channels: int
    max_unreadable: float
    texts: Sequence[Sequence[str]] | None = None
    unreadable: set[int] = field(default_factory=set, init=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        read = [self._readable(i) for i in indices]
        images = torch.stack([image for _, image in read])
        return {"image": images, **self.conditions([i for i, _ in read])}

    def digest(self) -> bytes:
        """Returns SHA-256 of names, sizes and times of the files, labels and captions."""
        digest = hashlib.sha256(f"{READING} {self.size} {self.channels}\n".encode())
        for name in self.names:
            stat = (self.root / name).stat()
            digest.update(os.fsencode(name) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        digest.update(self.annotations())
        return digest.digest()

    def _readable(self, index: int) -> tuple[int, Tensor]:
        """Returns the picture at an index, or the next one that can be read, with its index."""
        while True:
            if index not in self.unreadable:
                try:
                    path = self.root / self.names[index]
                    return index, read_picture(path, self.size, self.channels)
                except ValueError as error:
                    self._skip(index, error)
            index = (index + 1) % len(self.names)

    def _skip(self, index: int, error: ValueError) -> None:
        self.unreadable.add(index)
        bad, name = len(self.unreadable), self.names[index]
        if bad == len(self.names) or bad > self.max_unreadable * len(self.names):
            raise ValueError(
                f"data.max_unreadable: {self.max_unreadable}; expected at least the share of "
                f"unreadable pictures, {bad} of {len(self.names)}; the last was {name} ({error})"
            ) from None
        if bad <= 10:
            warnings.warn(f"skipped the unreadable picture {name} ({error})", stacklevel=2)
