"""Pictures in files, decoded when they are asked for."""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data.captions.blend import Blend
from diffusion.data.reading.beside_files import control_file
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
        beside: The channels of the controls in files beside the pictures, by name.
        blend: What picks among the captions of a picture.
        prompts: Short texts of each picture, or None.
    """

    root: Path
    names: list[str]
    labels: Tensor | None
    size: int
    channels: int
    max_unreadable: float
    texts: Sequence[Sequence[str]] | None = None
    beside: Mapping[str, int] = field(default_factory=dict[str, int])
    blend: Blend | None = None
    prompts: Sequence[Sequence[str]] | None = None
    unreadable: set[int] = field(default_factory=set, init=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.visit(indices, [0] * len(indices))

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> Batch:
        """Returns pictures, each with the caption whose turn it is."""
        read = [self._readable(i) for i in indices]
        shown = {key: torch.stack([maps[key] for _, maps in read]) for key in read[0][1]}
        return {**shown, **self.labels_and_texts([i for i, _ in read], visits)}

    def digest(self) -> bytes:
        """Returns SHA-256 of names, sizes and times of the files, labels and captions."""
        digest = hashlib.sha256(f"{READING} {self.size} {self.channels}\n".encode())
        beside = [control_file(name, key) for key in self.beside for name in self.names]
        for name in (*self.names, *beside):
            stat = (self.root / name).stat()
            digest.update(os.fsencode(name) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        digest.update(self.annotations())
        return digest.digest()

    def _readable(self, index: int) -> tuple[int, dict[str, Tensor]]:
        """Returns the index of a picture, or of the next one that can be read, and what is read.

        That is "image" and the controls beside it, cropped and resized alike.
        """
        while True:
            if index not in self.unreadable:
                try:
                    name = self.names[index]
                    files = {"image": (name, self.channels)}
                    files |= {k: (control_file(name, k), c) for k, c in self.beside.items()}
                    read = {
                        key: read_picture(self.root / file, self.size, channels)
                        for key, (file, channels) in files.items()
                    }
                    return index, read
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
