"""A run's folder, before anything is written to it."""

import os
import shutil
import tempfile
from pathlib import Path

from lightning.fabric.utilities.rank_zero import _get_rank
from torch import nn

from diffusion.common.files import check_writable, sweep
from diffusion.systems.checkpoints import lock

FOLDERS = ("checkpoints", "samples", "snapshots", "predictions")


def claim(run: Path, command: str, resuming: bool) -> None:
    """Refuses a folder that cannot be written to, has a run already, or is trained in just now.

    What killed processes left unfinished there is removed.

    Args:
        run: The run's folder.
        command: What is about to write: fit, validate, test or predict.
        resuming: Whether training goes on from a checkpoint.

    Raises:
        FileExistsError: If the folder is another run's.
        OSError: If it, or the folder for temporary files, cannot be written to.
    """
    if command == "fit":
        check_run(run, resuming)
    check_writable(run, "trainer.default_root_dir")
    for name in FOLDERS:
        sweep(run / name)
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise OSError("TMPDIR: no such folder; expected one that can be written to") from error
    if command == "fit" and is_first():
        lock.hold(run / "checkpoints")


def check_run(run: Path, resuming: bool) -> None:
    """Refuses to train over a finished or interrupted run.

    Raises:
        FileExistsError: If the folder has a checkpoint and training does not resume from it.
    """
    files = [p for p in (run / "checkpoints").glob("*.ckpt") if not p.name.startswith(".")]
    if files and not resuming:
        raise FileExistsError(
            f"trainer.default_root_dir: {run} has a run already ({min(files)}); expected "
            "--ckpt_path last to go on with it, or another --trainer.default_root_dir"
        )


def check_room(run: Path, module: nn.Module) -> None:
    """Refuses to train where not even a module's weights find room.

    Raises:
        OSError: If the disk has less room than that.
    """
    size = sum(value.nbytes for value in module.state_dict().values())
    free = shutil.disk_usage(run).free
    if free < size:
        raise OSError(
            f"trainer.default_root_dir: {run} has room for {free / 1e6:,.0f} MB; expected more "
            f"than the {size / 1e6:,.0f} MB of the weights, for each checkpoint"
        )


def is_first() -> bool:
    """Whether this is the first process, or the only one, before there is a trainer to ask."""
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return not _get_rank() and node == "0"
