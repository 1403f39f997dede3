"""Digests: names of files that are computed once, of weights, of shares."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


def digest(key: Any) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of plain values, say of what a file depends on."""
    return bytes_digest(json.dumps(key, sort_keys=True).encode())


def bytes_digest(*parts: bytes) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of bytes, one part after the other."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def file_digest(path: Path) -> bytes:
    """Returns SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of names, shapes and values, floats rounded to fp16.

    So a float32 checkpoint and its half-precision export are the same model, in whichever order
    their tensors stand.

    Args:
        state: The parameters and buffers of a model, by name.
    """
    sha = hashlib.sha256()
    for name, value in sorted(state.items()):
        value = value.detach().cpu()
        value = value.half() if value.is_floating_point() else value.long()
        sha.update(f"{name} {list(value.shape)}\n".encode())
        sha.update(value.contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def share_of(name: str) -> float:
    """Returns a stable hash of a name, uniform in [0, 1): adding names moves no other."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64
