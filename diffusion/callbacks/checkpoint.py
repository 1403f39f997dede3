"""Checkpoints: the latest ones, and always the last."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from diffusion.callbacks.monitor import NotFinite
from diffusion.common.files import link
from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.data.reading.workers import undisturbed
from diffusion.systems.checkpoints import latest, lock, resume
from diffusion.systems.checkpoints.whole_files import with_whole_files
from diffusion.systems.trainer import attributes, data_of


class Checkpoint(ModelCheckpoint):
    """Saves to `<run>/checkpoints/step_N.ckpt`, with a link last.ckpt, and when training ends.

    Also when training is interrupted or fails, so that `--ckpt_path last` goes on from there. Only
    one process trains in a folder.

    Args:
        dirpath: The folder; by default that of the run.
        every_n_steps: How often, in optimizer steps.
        keep: How many of the latest to keep, whatever they were saved for; −1 keeps all.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self, dirpath: str | None = None, every_n_steps: int = 1000, keep: int = 1
    ) -> None:
        check_counts("checkpoint", every_n_steps=every_n_steps)
        if keep < 1 and keep != -1:
            raise ValueError(f"checkpoint.keep: {keep}; expected at least 1, or -1 for all")
        self.keep = keep
        self.began = False
        super().__init__(
            dirpath=dirpath,
            filename="step_{step:07d}",
            auto_insert_metric_name=False,
            save_top_k=-1,
            every_n_train_steps=every_n_steps,
            save_on_exception=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Locks the folder for training, and sees to it that files are whole."""
        self.dirpath = self._folder(trainer)
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not attributes(trainer).fast_dev_run:
            if trainer.is_global_zero:
                lock.hold(Path(self.dirpath))
            with_whole_files(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Unlocks the folder."""
        if stage == "fit":
            lock.release(Path(self._folder(trainer)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What training goes on from is not saved again."""
        super().on_train_start(trainer, pl_module)
        self.began = True
        if self.file_exists(self._path(trainer), trainer):
            self._last_global_step_saved = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the last state, which Lightning's own callback leaves out between two intervals."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_checkpoint(trainer, self._path(trainer))

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Saves what was trained so far, unless it is what went wrong.

        Before training begins there is nothing, and a checkpoint may be restored in part only. If
        saving fails, too, a warning says so: the exception stays the one that is reported.
        """
        wrong = isinstance(exception, NotFinite)
        if wrong or not self.began or self._should_skip_saving_checkpoint(trainer):
            return
        path = self._path(trainer)
        try:
            with undisturbed():
                self._save_checkpoint(trainer, path)
        except Exception as error:
            rank_zero_warn(f"step {trainer.global_step} could not be saved: {error}")
        else:
            rank_zero_info(f"{type(exception).__name__} ended training; it is saved in {path}")

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Begins the next optimizer step at its first micro-batch, wherever the last run ended.

        Until that step there is nothing to save: a failure leaves the checkpoint as it is.
        """
        if not trainer.training:
            return
        data = data_of(trainer)
        step, accumulated = checkpoint["global_step"], trainer.accumulate_grad_batches
        self._last_global_step_saved = step
        if not isinstance(data, Images) or not step:
            return
        if type(data).__qualname__ not in checkpoint:
            data.load_state_dict({"read": step * accumulated * data.positions_per_batch})
            rank_zero_warn(
                f"ckpt_path: says not how many pictures of {type(data).__name__} were read; "
                f"training goes on after {data.position:,}, as if all batches had been as today"
            )
        batches = data.position // data.positions_per_batch
        loops = checkpoint["loops"]["fit_loop"]
        resume.count(loops, batches, step, accumulated, data.batches_per_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what there is, the folder says."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: Any) -> None:
        self._save_checkpoint(trainer, self._path(trainer))

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """Saves; then moves the link, and only then removes what is more than `keep`."""
        super()._save_checkpoint(trainer, filepath)
        saved = Path(filepath)
        last = saved.with_name(latest.LAST)
        self.best_model_path, self.last_model_path = filepath, str(last)
        if trainer.is_global_zero:
            link(last, saved)
            # Of more steps than the one just saved: another branch of training, and not ours.
            every = latest.steps(saved.parent)
            for old in every[every.index(saved) + self.keep :] if self.keep > 0 else ():
                self._remove_checkpoint(trainer, str(old))

    def _find_last_checkpoints(self, trainer: L.Trainer) -> set[str]:
        found = latest.find(Path(self._folder(trainer)))
        return set() if found is None else {str(found)}

    def _folder(self, trainer: L.Trainer) -> str:
        return str(self.dirpath or Path(trainer.default_root_dir).absolute() / "checkpoints")

    def _path(self, trainer: L.Trainer) -> str:
        return os.path.join(self._folder(trainer), f"step_{trainer.global_step:07d}.ckpt")
