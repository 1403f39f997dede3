"""Checkpoints: the latest ones, and always the last."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from diffusion.data import Images
from diffusion.training import resume
from diffusion.training.callbacks.monitor import NotFinite


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
        if not self._should_skip_saving_checkpoint(trainer):
            candidates: Any = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Saves what was trained so far, unless it is what went wrong."""
        if not isinstance(exception, NotFinite):
            super().on_exception(trainer, pl_module, exception)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Begins the next optimizer step at its first micro-batch, wherever the last run ended.

        Until that step there is nothing to save: a failure leaves the checkpoint as it is.
        """
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not trainer.training:
            return
        step, accumulated = checkpoint["global_step"], trainer.accumulate_grad_batches
        self._last_global_step_saved = step
        if not isinstance(data, Images) or not step:
            return
        if type(data).__qualname__ not in checkpoint:
            data.load_state_dict({"read": step * accumulated * data.positions_per_batch})
            rank_zero_warn(
                f"ckpt_path: says not how many pictures of {type(data).__name__} were read; "
                f"training goes on after {data.read:,}, as if all batches had been as today"
            )
        batches = data.read // data.positions_per_batch
        loops = checkpoint["loops"]["fit_loop"]
        resume.count(loops, batches, step, accumulated, data.batches_per_epoch)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """Moves the link before an older file goes, so that last.ckpt is there at any moment."""
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            link = Path(filepath).with_name("last.ckpt")
            aside = link.with_name(f".last-{os.getpid()}")
            aside.symlink_to(Path(filepath).name)
            aside.replace(link)

    @staticmethod
    def _link_checkpoint(trainer: L.Trainer, filepath: str, linkpath: str) -> None:
        """Nothing: the link is there."""
        trainer.strategy.barrier()
