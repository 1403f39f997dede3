"""Weights are data: files are read as tensors and plain values, and whatever needs more is refused.

safetensors holds nothing but tensors. A pickle can name any function to be called while it is
read; PyTorch's reader with `weights_only=True` knows those that make tensors, and no others. Of
those, `read` takes the ones that make plain tensors, of no more than what the file holds.
"""

import json
import pickletools
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from diffusion.common.files import file_of

CHUNK = 2**20
CHECKPOINT = "checkpoint"  # the entry of its metadata with all but the tensors, as JSON
PLAIN = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch.storage UntypedStorage",
    *(f"torch._utils _rebuild_{what}" for what in ("parameter", "tensor", "tensor_v2")),
}


class Broken(ValueError):
    """Why a file is no file of plain tensors, as the end of a sentence."""


def read(path: Path, key: str = "weights") -> Any:
    """Returns what a file of weights holds, on the CPU.

    Args:
        path: A .safetensors file, or one that `torch.save` wrote; or an exported folder, which
            holds what a checkpoint does, but for the state of the training.
        key: What errors call it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut short, damaged, something else, or needs code to be run.
    """
    path = file_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"{key}: {path}; expected a file of weights, there is none")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        mapped = zipfile.is_zipfile(path)
        if mapped:
            stat = path.stat()
            _check_records(path, stat.st_mtime_ns, stat.st_size)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        _check_dense(content)
        return content
    except Broken as error:
        reason = str(error)
    except Exception as error:  # readers fail in many ways, and say it in many lines
        code = "unsupported global" in str(error).lower()
        reason = "it asks for code to be run" if code else "it is cut short or something else"
    raise ValueError(f"{key}: {path}; expected tensors and plain values only, {reason}")


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Returns the tensors by name; of an exported model its checkpoint, with floats in float32."""
    with safe_open(path, framework="pt") as file:
        values, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    if CHECKPOINT not in about:
        return values
    content = json.loads(about[CHECKPOINT])
    if not isinstance(content, dict):
        raise Broken("its metadata is something else")
    floats = {k: v.float() for k, v in values.items() if v.is_floating_point()}
    return {**content, "state_dict": values | floats}


@lru_cache(maxsize=64)
def _check_records(path: Path, changed: int, size: int) -> None:
    """Refuses a zip file whose records are not as `torch.save` writes them.

    Tensors are mapped where they lie, so that compressed ones would be taken for other numbers, and
    nothing else looks at the checksums.

    Args:
        path: The file, read once.
        changed: When it was changed, in nanoseconds.
        size: How long it is, in bytes.

    Raises:
        Broken: If they are compressed, damaged, or name what makes other than plain tensors.
    """
    with zipfile.ZipFile(path) as records:
        entries = records.infolist()
        if len({entry.filename for entry in entries}) < len(entries) or records.comment:
            raise Broken("its records are not those of one file")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Broken("its records are compressed")
        if sum(entry.file_size for entry in entries) > size:
            raise Broken("it is cut short or something else")
        for entry in entries:
            with records.open(entry) as record:
                try:
                    while record.read(CHUNK):
                        pass
                except zipfile.BadZipFile:
                    name = entry.filename.partition("/")[2]
                    raise Broken(f"it is damaged: the checksum of {name} is wrong") from None
            if entry.filename.endswith("/data.pkl"):
                _check_names(records.read(entry))


def _check_names(pickled: bytes) -> None:
    """Refuses a pickle that names anything but what makes plain tensors."""
    for code, argument, _ in pickletools.genops(pickled):
        if "GLOBAL" not in code.name and code.name != "INST":
            continue
        name = str(argument)
        module, _, what = name.partition(" ")
        typed = module == "torch" and (
            what.endswith("Storage") or isinstance(getattr(torch, what, None), torch.dtype)
        )
        if name not in PLAIN and not typed:
            torchs = module.partition(".")[0] == "torch"
            reason = f"it has {what.lstrip('_')}" if torchs else "it asks for code to be run"
            raise Broken(reason)


def _check_dense(content: Any) -> None:
    """Refuses tensors that are not plain, or that claim more numbers than are stored."""
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu"
            if not plain or value.is_quantized or value.is_nested:
                raise Broken("it has tensors that are sparse, quantised or without numbers")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise Broken(f"a tensor of shape {tuple(value.shape)} has fewer numbers than that")
        elif isinstance(value, Mapping):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            left += value


def state(content: Any, key: str, path: Path, entry: str = "state_dict") -> dict[str, Tensor]:
    """Returns the named tensors of a checkpoint, once they are known to be finite ones.

    Args:
        content: What `read` returned.
        key: What errors call it.
        path: The file.
        entry: Which part of the content.

    Raises:
        ValueError: If there are none, or one is something else, NaN or infinite.
    """
    found = content.get(entry) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{key}: {path}; expected a checkpoint of this project, with a {entry}")
    return _checked(found, key, path)


def tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns a state dict's tensors in float32 where they are floats.

    Raises:
        ValueError: If it is no mapping from names to tensors, or not all are finite.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"weights: {path}; expected named tensors, it holds none")
    found = _checked(content, "weights", path)
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}


def _checked(found: Mapping[Any, Any], key: str, path: Path) -> dict[str, Tensor]:
    """Returns named tensors, once they are known to be that, and finite."""
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"{key}: {path}; expected named tensors, {name!r:.80} is {kind}")
        if value.is_floating_point() and value.numel():
            ends = torch.stack(value.detach().aminmax()).float()
            if not ends.isfinite().all():
                raise ValueError(f"{key}: {path}; expected finite weights, {name} has NaN or inf")
    return dict(found)
