"""The progress bar of training, validation and tests."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import Progress, TaskID

from diffusion.common.progress import bar
from diffusion.systems.trainer import attributes, training_steps


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
        steps = {"total": training_steps(trainer), "completed": trainer.global_step}
        self.shown = bar("steps", self.enabled, keep=True)
        self.training = self.shown.add_task("Training", note="", **steps)
        self.shown.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Shows the step, and the figures when there are new ones: reading them waits for a GPU."""
        if self.shown is not None and self.training is not None:
            self.shown.update(self.training, completed=trainer.global_step)
            logged = (trainer.global_step - 1) % attributes(trainer).log_every_n_steps == 0
            if self.enabled and logged:  # the step before
                figures = self.get_metrics(trainer, pl_module)
                numbers = {k: v for k, v in figures.items() if k != "v_num"}
                note = " ".join(
                    f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                    for k, v in numbers.items()
                )
                self.shown.update(self.training, note=note)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar beneath that of training, if there is one."""
        self._evaluate("Validating", trainer.num_val_batches)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar for the batches of a test."""
        self._evaluate("Testing", trainer.num_test_batches)

    def on_validation_batch_end(self, *_args: Any, **_options: Any) -> None:
        """Counts a batch."""
        if self.shown is not None and self.evaluating is not None:
            self.shown.advance(self.evaluating)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the bar away."""
        if self.shown is not None and self.evaluating is not None:
            self.shown.remove_task(self.evaluating)
        self.evaluating = None
        if self.training is None:
            self.stop()

    on_test_batch_end, on_test_end = on_validation_batch_end, on_validation_end

    def stop(self, *_args: Any, **_options: Any) -> None:
        """Leaves the bar as it is, and the terminal in order."""
        if self.shown is not None:
            self.shown.stop()
        self.shown = self.training = self.evaluating = None

    on_train_end = on_exception = teardown = stop

    def _evaluate(self, what: str, batches: Any) -> None:
        if self.shown is None:
            self.shown = bar("batches", self.enabled)
            self.shown.start()
        total = sum(batches) if isinstance(batches, list) else batches
        self.evaluating = self.shown.add_task(what, total=total, note="")
