"""Splits that depend on names alone, so that adding things moves no other."""

import hashlib


def share_of(name: str) -> float:
    """Where a name falls in [0, 1), evenly and for ever."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
