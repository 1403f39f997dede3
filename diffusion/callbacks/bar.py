"""The progress bar of training, validation and tests."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import Progress, TaskID

from diffusion.common.progress import bar
from diffusion.systems.trainer import training_steps


class Bar(ProgressBar):
    """Counts optimizer steps while training, and batches in validations and tests.

    Rate and time that is left come from the steps of this process alone, so they are right after
    resuming, and one step is one however many micro-batches it accumulates. What the module logs
    with `prog_bar=True` stands behind. Samples that are drawn have bars of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.shown: Progress | None = None
        self.training: TaskID | None = None
        self.evaluating: TaskID | None = None

    def disable(self) -> None:
        """Called on all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Undoes `disable`."""
        self.enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins at the step that is resumed from."""
        total = training_steps(trainer)
        self.shown = bar("steps", self.enabled, keep=True)
        self.training = self.shown.add_task(
            "Training", total=total, completed=trainer.global_step, note=""
        )
        self.shown.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any
    ) -> None:
        """Shows the step, and the figures when there are new ones: reading them waits for a GPU."""
        if self.shown is not None and self.training is not None:
            interval: Any = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
            self.shown.update(self.training, completed=trainer.global_step)
            if self.enabled and (trainer.global_step - 1) % interval == 0:  # logged the step before
                self.shown.update(self.training, note=self._note(trainer, pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the bar as it is."""
        self._stop()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar beneath that of training, if there is one."""
        self._evaluate("Validating", trainer.num_val_batches)

    def on_validation_batch_end(self, *_args: Any) -> None:
        """Counts a batch."""
        if self.shown is not None and self.evaluating is not None:
            self.shown.advance(self.evaluating)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the bar away."""
        if self.shown is not None and self.evaluating is not None:
            self.shown.remove_task(self.evaluating)
        self.evaluating = None
        if self.training is None:
            self._stop()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar for the batches of a test."""
        self._evaluate("Testing", trainer.num_test_batches)

    def on_test_batch_end(self, *_args: Any) -> None:
        """Counts a batch."""
        self.on_validation_batch_end()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the bar away."""
        self.on_validation_end(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leaves the terminal in order."""
        self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leaves the terminal in order."""
        self._stop()

    def _evaluate(self, what: str, batches: Any) -> None:
        if self.shown is None:
            self.shown = bar("batches", self.enabled)
            self.shown.start()
        total = sum(batches) if isinstance(batches, list) else batches
        self.evaluating = self.shown.add_task(what, total=total, note="")

    def _note(self, trainer: L.Trainer, module: L.LightningModule) -> str:
        figures = self.get_metrics(trainer, module)
        figures.pop("v_num", None)
        return " ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()
        )

    def _stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()
        self.shown = self.training = self.evaluating = None
