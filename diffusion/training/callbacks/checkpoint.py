"""Checkpoints: the latest ones, and always the last."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Saves to `<run>/checkpoints/step_N.ckpt`, with a link last.ckpt, and when training ends.

    Also when training is interrupted or fails, so that `--ckpt_path last` goes on from there.

    Args:
        dirpath: The folder; by default that of the run.
        every_n_steps: How often, in optimizer steps.
        keep: How many of the latest to keep; −1 keeps all.
    """

    def __init__(
        self, dirpath: str | None = None, every_n_steps: int = 1000, keep: int = 1
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step_{step:07d}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            save_top_k=keep,
            every_n_train_steps=every_n_steps,
            save_last="link",
            save_on_exception=True,
            enable_version_counter=False,
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the last state, which Lightning's own callback leaves out between two intervals."""
        if self._last_global_step_saved != trainer.global_step:
            candidates: Any = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
