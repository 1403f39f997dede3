"""What every trained module has in common: an optimizer, averages, and randomness by the step."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from diffusion.noise import seed
from diffusion.training.begin import begin
from diffusion.training.callbacks.ema import EMA
from diffusion.training.restorable import Restorable


class Trainable(Restorable):
    """A module with one optimizer, whose checkpoints hold averaged weights and rebuild it.

    Args:
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: A checkpoint whose averaged weights training starts from, see `begin`; None for
            initial ones. Whoever goes on with a run, or loads its result, does not need it.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        start: str | None = None,
    ) -> None:
        super().__init__()
        # Through the command line these are plain class paths; live objects built in Python would
        # put the weights into the checkpoint a second time, as a pickle.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            self.hparams.clear()
        self.optimizer, self.lr_scheduler, self.start = optimizer, lr_scheduler, start
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))

    def on_fit_start(self) -> None:
        """Starts from another model's weights, unless a checkpoint has just brought this one's."""
        if self.start is not None:
            begin(self, Path(self.start).expanduser())

    def seed_step(self, batch_idx: int) -> None:
        """One seed a step: ranks differ, and a resumed run draws what an unbroken one draws."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(seed(self.seed, self.global_rank, self.trainer.global_step, part))

    def configure_optimizers(self) -> Any:
        """An optimizer over what is trained, and a schedule that moves once a step."""
        optimizer = self.optimizer(p for p in self.parameters() if p.requires_grad)
        if self.lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Averaged weights are what a checkpoint is for; the raw ones go beside them."""
        for ema in self._averages():
            ema.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the raw weights back where training goes on."""
        self.start = None
        for ema in self._averages():
            ema.restore(self, checkpoint)

    def _averages(self) -> list[EMA]:
        callbacks = self._trainer.callbacks if self._trainer is not None else []  # pyright: ignore
        return [c for c in callbacks if isinstance(c, EMA)]
