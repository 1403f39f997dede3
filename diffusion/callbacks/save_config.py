"""The merged configuration, with the run and inside every checkpoint."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from diffusion.common.files import kept
from diffusion.plots import pictures

CONFIG = "config"


class SaveConfig(SaveConfigCallback):
    """Writes `<run>/config_<fit|validate|test|predict>.yaml`, and draws the loss at the end.

    An earlier, different file is kept under its time. `diffusion test --ckpt_path X` needs no other
    file, because a checkpoint has the text too, under "config".
    """

    def __init__(self, *args: Any, text: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text = text  # the merged configuration as YAML

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Writes the file; that of training only once it begins, as it may still be refused."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file of training."""
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Called once, on the first process."""
        command = trainer.state.fn and trainer.state.fn.value  # the stage is an enumeration's name
        path, text = Path(trainer.default_root_dir) / f"config_{command}.yaml", self.text
        if not path.exists() or path.read_text() != text:
            with kept(path) as aside:
                aside.write_text(text)
        for logger in trainer.loggers:
            logger.log_hyperparams({CONFIG: text})

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts the text into the checkpoint."""
        checkpoint[CONFIG] = self.text

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Draws the loss of a run that was interrupted, too."""
        if trainer.training:
            self.on_fit_end(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws `<run>/loss.png` from all the logs of the run."""
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            for logger in trainer.loggers:
                logger.save()
            pictures.curve(sorted(run.glob("csv/version_*/metrics.csv")), run / "loss.png")
