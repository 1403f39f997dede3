"""`--ckpt_path last`: the newest checkpoint of a run that is whole."""

import os
import re
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from diffusion.common import weights
from diffusion.common.files import file_of
from diffusion.systems.checkpoints.restorable import Restorable

LAST = "last.ckpt"
STEP = re.compile(r"step_(\d+)\.ckpt")


def resolve(path: str | None, run: Path, command: str) -> str | None:
    """Returns the checkpoint that --ckpt_path names, and says which one "last" is.

    Args:
        path: What was said; everything but "last" is returned as it is.
        run: The run's folder.
        command: fit, validate, test or predict; the first may begin without one.

    Raises:
        ValueError: If it is "last", and no checkpoint of the run is whole.
        FileNotFoundError: If it is "last", there is no checkpoint, and one is needed.
    """
    if path != "last":
        return path
    found = find(run / "checkpoints")
    if found is not None:
        rank_zero_info(f"ckpt_path: last is {found}")
        return str(found)
    if command != "fit":
        raise FileNotFoundError(
            f"ckpt_path: last; expected {run / 'checkpoints' / LAST}, there is none (a path finds "
            "another run's)"
        )
    rank_zero_info(f"ckpt_path: last; {run} has no checkpoint yet, training begins")
    return None


def find(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint of a folder, or None if there is no checkpoint at all.

    That is the one of the most steps, but none that is older than the one that last.ckpt points to:
    such a file is of a run that went on from an earlier checkpoint.

    Args:
        folder: With files `step_N.ckpt`, and last.ckpt.

    Raises:
        ValueError: If there are checkpoints, and none is whole.
    """
    last = folder / LAST
    times = {p: p.stat().st_mtime for p in steps(folder)}
    if last.is_file() and not last.is_symlink():  # a copy, where there are no links
        times[last] = last.stat().st_mtime
    target = folder / os.readlink(last) if last.is_symlink() else last
    since = times.get(target, 0)
    order = sorted(times, key=lambda p: (times[p] >= since, _step(p), times[p]), reverse=True)
    for path in order:
        if whole(path):
            return path
        rank_zero_warn(f"ckpt_path: {path} is damaged or cut short, and left out")
    if order or last.is_symlink():
        names = ", ".join(p.name for p in order) or f"{LAST}, a link to nothing,"
        raise ValueError(
            f"ckpt_path: last; expected a whole checkpoint in {folder}, {names} is damaged or cut "
            "short, or asks for code to be run (to train anew, move it away)"
        )
    return None


def check_weights(module: nn.Module, command: str, run: Path, path: str | None) -> None:
    """Refuses to measure, or to draw with, weights that nobody has trained.

    Args:
        module: The model.
        command: fit, validate, test or predict.
        run: The run's folder.
        path: What `resolve` returned.

    Raises:
        ValueError: If there is no checkpoint, and one is needed.
        FileNotFoundError: If the file is missing.
    """
    if path is None:
        if command != "fit" and not (isinstance(module, Restorable) and module.has_weights):
            raise ValueError(
                f"ckpt_path: null; expected a checkpoint, as {command} needs trained weights: "
                f"--ckpt_path {run / 'checkpoints' / LAST}, or whichever"
            )
    elif path == "hpc":
        if not any(run.glob("hpc_ckpt_*.ckpt")):
            raise FileNotFoundError(f"ckpt_path: hpc; expected {run}/hpc_ckpt_N.ckpt, one at least")
    elif not file_of(Path(path)).is_file():
        raise FileNotFoundError(f"ckpt_path: {path}; expected a checkpoint file, or last")


def steps(folder: Path) -> list[Path]:
    """Returns the files `step_N.ckpt` of a folder, those of the most steps first."""
    files = [p for p in folder.glob("step_*.ckpt") if STEP.fullmatch(p.name) and p.exists()]
    return sorted(files, key=_step, reverse=True)


def whole(path: Path) -> bool:
    """Whether a file is a checkpoint whose every record is as it was written."""
    try:
        return isinstance(weights.read(path, "ckpt_path"), dict)
    except (ValueError, OSError):
        return False


def _step(path: Path) -> int:
    """Returns how many steps a checkpoint has seen, by its name if it says so."""
    if match := STEP.fullmatch(path.name):
        return int(match[1])
    try:
        return int(weights.read(path, "ckpt_path")["global_step"])
    except (ValueError, TypeError, KeyError):
        return -1
