"""What every trained module has in common: an optimizer, averages, and randomness by the step."""

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from diffusion.data import Images
from diffusion.networks import TextEncoder
from diffusion.noise import seed
from diffusion.spec import DATA, DataSpec
from diffusion.systems.averages import EMA
from diffusion.systems.checkpoints.agreement import agree
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.checkpoints.resume import adopt
from diffusion.systems.checkpoints.start import begin
from diffusion.systems.schedules import most


class Trainable(Restorable):
    """A module with one optimizer, whose checkpoints hold averaged weights and rebuild it.

    Args:
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: A checkpoint whose averaged weights training starts from, see `begin`; None for
            initial ones. Whoever goes on with a run, or loads its result, does not need it.

    Attributes:
        spec: What it was trained on, as its checkpoint says; None until there is a data module.
        expects: That of a checkpoint that will be loaded, where it is known before.
    """

    spec: DataSpec | None = None
    expects: DataSpec | None = None

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

    @property
    def reads_labels(self) -> bool:
        """Whether it matters which number a class has."""
        return True

    @property
    def reads_texts(self) -> bool:
        """Whether it reads the texts of a batch."""
        return any(isinstance(part, TextEncoder) for part in self.modules())

    def setup(self, stage: str) -> None:
        """Refuses data that does not fit, before anything is trained or drawn.

        Data that only a checkpoint knows waits for `on_load_checkpoint`.
        """
        data = self._data()
        if data is None:
            return
        if self.expects is not None:
            self._compare(self.expects, data)
        elif self.spec is not None:
            agree(self.spec, data, self.reads_labels, beginning=stage == "fit")
        elif not data.is_known:
            return
        self.check(data)
        self.spec = data.spec

    def check(self, data: Images) -> None:
        """Refuses data that does not fit.

        Raises:
            ValueError: If it does not.
        """
        raise NotImplementedError

    def _data(self) -> Images | None:
        data = getattr(self._trainer, "datamodule", None)
        return data if isinstance(data, Images) else None

    def on_fit_start(self) -> None:
        """Starts from another model's weights, unless a checkpoint has just brought this one's.

        Raises:
            ValueError: If the schedule is for fewer steps than there will be.
        """
        self._check_schedule()
        if self.start is not None:
            spec, data = begin(self, Path(self.start).expanduser()), self._data()
            if spec is not None and data is not None:
                agree(spec, data, self.reads_labels, beginning=True)

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
        if self.spec is not None:
            checkpoint[DATA] = self.spec.plain()
        for ema in self._averages():
            ema.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the raw weights back where training goes on, with the options of today.

        Data that the checkpoint was not trained on is refused.

        Raises:
            ValueError: If the checkpoint's optimizer is of another model, or missing.
        """
        self.start = None
        for ema in self._averages():
            ema.restore(self, checkpoint)
        self._meet(DataSpec.read(checkpoint), self._data())
        if self._trainer is not None and self._trainer.training:
            made = self.configure_optimizers()
            if isinstance(made, dict):
                optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
            else:
                optimizer, schedule = made, None
            adopt(checkpoint, self.optimizer, optimizer, schedule)

    def _meet(self, spec: DataSpec | None, data: Images | None) -> None:
        """Compares the data with a checkpoint's, or takes from there what is not known of it."""
        self.expects = None
        if data is None:
            self.spec = spec
            return
        waited = not data.is_known
        if spec is not None:
            self._compare(spec, data)
        if waited:
            self.check(data)
        self.spec = data.spec

    def _compare(self, spec: DataSpec, data: Images) -> None:
        """Compares the data with that of the checkpoint that is being loaded."""
        imported = spec.name is None and self.trainer.state.fn == TrainerFn.FITTING
        agree(spec, data, self.reads_labels, beginning=imported)

    def _averages(self) -> list[EMA]:
        callbacks = self._trainer.callbacks if self._trainer is not None else []  # pyright: ignore
        return [c for c in callbacks if isinstance(c, EMA)]


def training_steps(trainer: L.Trainer) -> int | None:
    """Returns how many optimizer steps a run has at most, all in all; None if nothing says so."""
    limits = [] if trainer.max_steps == -1 else [trainer.max_steps]
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    known = isinstance(data, Images)
    batches = data.batches_per_epoch if known else trainer.num_training_batches
    if (epochs := trainer.max_epochs or -1) > 0 and batches not in (None, float("inf")):
        limits.append(epochs * -(-int(batches) // trainer.accumulate_grad_batches))
    return min(limits, default=None)
