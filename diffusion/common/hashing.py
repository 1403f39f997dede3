"""Names of files that are computed once."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(key: Mapping[str, Any]) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of what a cached file was computed from."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Returns 16 hexadecimal digits of SHA-256 of a network's parameters and buffers."""
    sha = hashlib.sha256()
    for name, value in state.items():
        sha.update(name.encode())
        # As bytes, since NumPy has no bfloat16.
        sha.update(
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return sha.hexdigest()[:16]


def share_of(name: str) -> float:
    """Where a name falls in [0, 1), evenly and for ever."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64
