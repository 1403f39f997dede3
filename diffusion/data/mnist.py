"""MNIST and Fashion-MNIST."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.data.downloaded import Downloaded

FILES = [
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


class MNIST(Downloaded):
    """60,000 + 10,000 handwritten digits of 28×28 grey pixels.

    The four idx files, gzipped or not, may lie in `root` itself or in `root`/MNIST/raw, where
    torchvision downloads them to. For the arguments see `Downloaded` and `Images`.
    """

    native = (1, 28, 28)
    classes = tuple("0123456789")
    advice = "put the files there, plain or as .gz"

    def missing(self) -> list[str]:
        """Returns the files that are in neither folder, if no folder has all of them."""
        return [name for name, path in self._files().items() if not path.is_file()]

    def fetch(self) -> None:
        """Downloads with torchvision."""
        from torchvision import datasets

        fashion = isinstance(self, FashionMNIST)
        (datasets.FashionMNIST if fashion else datasets.MNIST)(self.root, download=True)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Returns the content of a pair of idx files.

        Raises:
            ValueError: If a file is corrupt, or the two do not fit together.
        """
        paths = list(self._files().values())[slice(0, 2) if train else slice(2, 4)]
        images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
        if images.shape[1:] != self.native[1:]:
            height, width = images.shape[1:]
            raise ValueError(f"data.root: {paths[0]} has {height}x{width} pixels; expected 28x28")
        if (n := len(labels)) != len(images):
            raise ValueError(f"data.root: {paths[1]} has {n} labels; expected {len(images)}")
        if n and labels.max() >= 10:
            raise ValueError(f"data.root: {paths[1]} has label {labels.max()}; expected 0 .. 9")
        return images[:, None], labels.to(torch.int64)

    def _files(self) -> dict[str, Path]:
        """Returns the paths of the files in the folder that has more of them."""
        root, found = Path(self.root).expanduser(), []
        for folder in (root / type(self).__name__ / "raw", root):
            plain = {name: folder / name for name in FILES}
            found.append({n: p if p.is_file() else Path(f"{p}.gz") for n, p in plain.items()})
        return max(found, key=lambda files: sum(path.is_file() for path in files.values()))


class FashionMNIST(MNIST):
    """60,000 + 10,000 articles of clothing of 28×28 grey pixels, Xiao et al. (2017).

    Files as for `MNIST`, or the folder of Debian's package dataset-fashion-mnist,
    /usr/share/datasets/fashion-mnist, as `root`.
    """

    classes = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    advice = (
        "install Debian's package dataset-fashion-mnist and set "
        "`root: /usr/share/datasets/fashion-mnist`"
    )


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Returns the bytes of an idx file, uint8 (N, H, W) or (N,).

    A header of big-endian 32-bit numbers, 2048 + the number of dimensions and then the size of
    each, is followed by the values.

    Args:
        path: The file; unpacked if its name ends in .gz.
        dimensions: 3 for images, 1 for labels.

    Raises:
        ValueError: If the file is cut short or is something else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _broken(path, f"it is no gzip file ({error})") from None
    start = 4 * (1 + dimensions)
    magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content.ljust(start, b"\0"))
    if magic != 2048 + dimensions:
        raise _broken(path, f"it starts with {magic} instead of {2048 + dimensions}")
    size = start + math.prod(shape)
    if len(content) != size:
        raise _broken(path, f"it has {len(content)} bytes instead of {size}")
    values = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(f"data.root: {path}; expected an idx file, {why}: delete it and get it again")
