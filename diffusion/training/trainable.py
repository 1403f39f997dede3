"""What every trained module has in common: an optimizer, averages, and randomness by the step."""

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from diffusion.data import Images
from diffusion.noise import seed
from diffusion.training.begin import begin
from diffusion.training.callbacks.ema import EMA
from diffusion.training.restorable import Restorable
from diffusion.training.resume import adopt
from diffusion.training.schedule import most


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
        """Starts from another model's weights, unless a checkpoint has just brought this one's.

        Raises:
            ValueError: If the schedule is for fewer steps than there will be.
        """
        self._check_schedule()
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

    def _check_schedule(self) -> None:
        """Refuses to train on where the schedule has come to its end."""
        make, steps = self.lr_scheduler, training_steps(self.trainer)
        if make is None or steps is None:
            return

        def fresh() -> LRScheduler:
            return make(self.optimizer([nn.Parameter(torch.zeros(1))]))  # pyright: ignore

        if (few := most(fresh, steps)) is not None:
            raise ValueError(
                f"trainer.max_steps: {steps}; expected at most {few}, as the learning rate of "
                f"model.lr_scheduler, {type(fresh()).__name__}, ends there"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Averaged weights are what a checkpoint is for; the raw ones go beside them."""
        for ema in self._averages():
            ema.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the raw weights back where training goes on, with the options of today.

        Raises:
            ValueError: If the checkpoint's optimizer is of another model, or missing.
        """
        self.start = None
        for ema in self._averages():
            ema.restore(self, checkpoint)
        if self._trainer is not None and self._trainer.training:
            made = self.configure_optimizers()
            if isinstance(made, dict):
                optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
            else:
                optimizer, schedule = made, None
            adopt(checkpoint, self.optimizer, optimizer, schedule)

    def _averages(self) -> list[EMA]:
        callbacks = self._trainer.callbacks if self._trainer is not None else []  # pyright: ignore
        return [c for c in callbacks if isinstance(c, EMA)]


def training_steps(trainer: L.Trainer) -> int | None:
    """Returns how many optimizer steps a run has at most, all in all; None if nothing says so."""
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(data, Images) and (epochs := trainer.max_epochs or 0) > 0:
        limits.append(epochs * -(-(data.batches_per_epoch or 0) // trainer.accumulate_grad_batches))
    return min(limits, default=None)
