"""Files that are computed once: their names, and how they are written."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor


def digest(key: Mapping[str, Any]) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of what a cached file was computed from."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of a network's parameters and buffers."""
    sha = hashlib.sha256()
    for name, value in state.items():
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yields a path to write to; the file is renamed to `path` when it is complete.

    A reader, or a second process that computes the same, never sees half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
