"""The idx format of MNIST and its relatives, gzipped or not.

A header of big-endian 32-bit numbers, 2048 + the number of dimensions and then the size of each,
is followed by the values as bytes.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of bytes.

    Args:
        path: The file; unpacked if its name ends in .gz.
        dimensions: 3 for images, 1 for labels.

    Returns:
        uint8, (N, H, W) or (N,).

    Raises:
        ValueError: The file is cut short or is something else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: broken gzip file ({error}), delete it and get it again"
        ) from None
    start = 4 * (1 + dimensions)
    magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content.ljust(start, b"\0"))
    if magic != 2048 + dimensions:
        raise ValueError(f"{path}: starts with {magic}, expected {2048 + dimensions} (an idx file)")
    size = start + math.prod(shape)
    if len(content) != size:
        raise ValueError(
            f"{path}: {len(content)} bytes, expected {size}, delete it and get it again"
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())
