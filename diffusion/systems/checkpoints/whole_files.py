"""How a trainer writes and reads checkpoints: whole files, and exported folders."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from diffusion.common import weights
from diffusion.common.files import file_of, written_aside


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk, and renames it.

    It also reads what `diffusion export --to safetensors` writes.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a file that is whole or not there."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns what Lightning's own does, or the content of an exported model."""
        if file_of(Path(path)).suffix == ".safetensors":
            return weights.read(Path(path), "ckpt_path")
        return super().load_checkpoint(path, *args, **kwargs)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint; one that is there stays until this one is whole.

    Raises:
        OSError: If it cannot be written.
    """
    with written_aside(path) as aside, aside.open("wb") as file:
        torch.save(checkpoint, file)  # to a name it would put this name inside


def with_whole_files(trainer: L.Trainer) -> L.Trainer:
    """Returns a trainer that uses `WholeFiles`, unless somebody gave it another plugin."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFiles()
    return trainer
