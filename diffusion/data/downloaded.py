"""Standard data sets that are downloaded once and fit in memory."""

import socket
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffusion.data.base import Images
from diffusion.data.sets import Memory

TIMEOUT = 20.0


class Downloaded(Images):
    """A standard data set in memory; its official test set is the validation and the test set.

    A subclass says `native`, the shape of its pictures, `advice`, how to get it by hand, `missing`,
    `fetch` and `read`.

    Args:
        root: Folder that holds the files, or shall hold them.
        download: Fetch the files if they are not there.
        size: Pad height and width with zeros to this; None leaves them.
        **kwargs: As for `Images`.

    Raises:
        ValueError: If the size is smaller than the pictures.
    """

    native: ClassVar[tuple[int, int, int]]
    advice: ClassVar[str]
    num_classes = 10

    def __init__(
        self, root: str = "data", download: bool = True, size: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        channels, height, width = self.native
        if size is not None and size < max(height, width):
            raise ValueError(f"data.size: {size}; expected null or at least {max(height, width)}")
        self.root, self.download = root, download
        self.shape = (channels, size or height, size or width)

    @abstractmethod
    def missing(self) -> list[str]:
        """Returns the names of the files that are not there."""

    @abstractmethod
    def fetch(self) -> None:
        """Downloads the files into the root."""

    @abstractmethod
    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Returns the training or the test set: uint8 (N, C, H, W) and int64 (N,)."""

    def prepare_data(self) -> None:
        """Downloads what is missing, in one process per machine; drawing samples needs no data.

        Raises:
            FileNotFoundError: If the download failed.
        """
        sampling = self.trainer is not None and self.trainer.predicting
        if sampling or not self.download or not self.missing():
            return
        try:
            with socket_timeout(TIMEOUT):
                self.fetch()
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1:]  # the lines before it are where from
            raise self._not_found(f"; the download failed: {' '.join(reason)}") from None

    def setup(self, stage: str) -> None:
        """Reads and pads the pictures.

        Raises:
            FileNotFoundError: If files are missing.
            ValueError: If a file is corrupt.
        """
        if self.is_set_up or stage == "predict":
            return
        if self.missing():
            raise self._not_found()
        test = self._padded(train=False)
        self.train_set, self.val_set, self.test_set = self._padded(train=True), test, test

    def _padded(self, train: bool) -> Memory:
        images, labels = self.read(train)
        height, width = (self.shape[i] - images.shape[i + 1] for i in (1, 2))
        if height or width:
            left, top = width // 2, height // 2
            images = pad(images, (left, width - left, top, height - top))
        return Memory(images, labels.to(torch.int64))

    def _not_found(self, reason: str = "") -> FileNotFoundError:
        first, *others = self.missing()
        more = f" and {len(others)} more" if others else ""
        name = type(self).__name__
        return FileNotFoundError(
            f"data.root: {self.root}; expected {first}{more} of {name} there: get it with "
            f"`download: true` where there is a network, or {self.advice}{reason}"
        )


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Lets no connection wait for longer, as downloads otherwise hang without a network."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
