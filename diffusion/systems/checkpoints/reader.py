"""How a trainer reads a checkpoint: a file that `fit` wrote, or an exported folder."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.plugins.io import TorchCheckpointIO

from diffusion.common import weights


class Reader(TorchCheckpointIO):
    """Lightning's own, which also reads what `diffusion export --to safetensors` writes."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns what `weights.read` does for an exported model."""
        if Path(str(path)).suffix == ".ckpt":
            return super().load_checkpoint(path, *args, **kwargs)
        return weights.read(Path(path), "ckpt_path")


def read_exported(trainer: L.Trainer) -> L.Trainer:
    """Lets a trainer read exported models, unless somebody gave it a plugin for checkpoints."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = Reader()
    return trainer
