"""Weights are data: files are read as tensors and plain values, and whatever needs more is refused.

safetensors holds nothing but tensors. A pickle can name any function to be called while it is
read; PyTorch's reader with `weights_only=True` knows those that make tensors, and no others.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

SHOWN = 3


def read(path: Path, key: str = "weights") -> Any:
    """Returns what a file of weights holds, on the CPU.

    Args:
        path: A .safetensors file, or one that `torch.save` wrote.
        key: What errors call it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut short, something else, or needs code to be run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{key}: {path}; expected a file of weights, there is none")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # readers fail in many ways, and say it in many lines
        code = "unsupported global" in str(error).lower()
        reason = "it asks for code to be run" if code else "it is cut short or something else"
        raise ValueError(
            f"{key}: {path}; expected tensors and plain values only, {reason}"
        ) from error


def tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns a state dict's tensors in float32 where they are floats.

    Raises:
        ValueError: If it is no mapping from names to tensors.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"weights: {path}; expected named tensors, it holds none")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"weights: {path}; expected named tensors, {name!r} is {type(value).__name__}"
            )
    return {k: v.float() if v.is_floating_point() else v for k, v in content.items()}


def listed(names: Sequence[str]) -> str:
    """Returns the first few of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
