"""What can be known to fail before training starts."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn


def check_run(run: Path, resuming: bool) -> None:
    """Refuses to train over a finished or interrupted run.

    Raises:
        FileExistsError: If the folder has a checkpoint and training does not resume from it.
    """
    last = run / "checkpoints" / "last.ckpt"
    if last.exists() and not resuming:
        raise FileExistsError(
            f"trainer.default_root_dir: {run} has a run already ({last}); expected "
            "--ckpt_path last to go on with it, or another --trainer.default_root_dir"
        )


def check_data(network: nn.Module, data: Any) -> None:
    """Compares the network with the data: channels, size, number of classes.

    Raises:
        ValueError: If they do not fit.
    """
    wanted: Any = getattr(network, "num_classes", None)
    if data.num_classes and wanted and data.num_classes > wanted:
        raise ValueError(
            f"model.network.num_classes: {wanted}; expected at least the {data.num_classes} "
            f"classes of {type(data).__name__}"
        )
    if len(data.shape) == 3:
        channels, height, width = data.shape
        have: Any = getattr(network, "in_channels", channels)
        if have != channels:
            raise ValueError(
                f"model.network.in_channels: {have}; expected the {channels} of "
                f"{type(data).__name__}"
            )
        factor: Any = getattr(network, "factor", 1)
        if height % factor or width % factor:
            raise ValueError(
                f"data: images of {type(data).__name__} are {height} x {width}; expected sides "
                f"that the network's depth divides, multiples of {factor}"
            )


def check_checkpoint(module: nn.Module, path: Path) -> None:
    """Compares a checkpoint's tensors with the model's.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    mine = module.state_dict()
    for name in (*mine, *saved):
        here, there = mine.get(name), saved.get(name)
        if here is None or there is None or here.shape != there.shape:
            was = "nothing" if there is None else tuple(there.shape)
            want = "nothing" if here is None else tuple(here.shape)
            raise ValueError(
                f"ckpt_path: {path} is of another model: {name} is {was}, expected {want}"
            )


def fingerprint(path: str | None) -> str | None:
    """Returns 16 digits that change with what a checkpoint file holds; other texts as they are."""
    if path is None or not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as records:
        sums = [(record.filename, record.CRC) for record in records.infolist()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
