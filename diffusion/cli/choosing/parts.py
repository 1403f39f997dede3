"""A model with its data and metrics, put together as the command line does, to be measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from torch import Tensor

from diffusion.callbacks.metrics import Metrics
from diffusion.cli.main import CLI, layered_options, quiet
from diffusion.systems.trainer import DEFAULTS

LOSS, DISTANCES = "val/loss", ("fd_", "fid@")
ALONE = ("--trainer.logger=false", "--wandb=off", "--trainer.devices=1")


class Parts(CLI):
    """What the command line makes of a configuration, to be measured several times.

    Args:
        ckpt_path: The checkpoint, whose own configuration is the first layer.
        flags: What comes over it.

    Attributes:
        figure: The name of the figure that `measured` returned last.
    """

    def __init__(self, ckpt_path: str, flags: Sequence[str]) -> None:
        quiet()
        args = ["validate", "--ckpt_path", ckpt_path, *flags, *ALONE]
        with layered_options(args) as options:
            super().__init__(L.LightningModule, L.LightningDataModule, **options)
        config = self.config_init["validate"]
        self.metrics: Metrics = config.metrics
        self.metrics.validate = True
        about = {key: config.trainer[key] for key in ("accelerator", "limit_val_batches")}
        precision = config.trainer.precision or "32-true"
        silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options = {**DEFAULTS, **silent, **about, "devices": 1, "precision": precision}
        self.own = L.Trainer(**options, callbacks=[self.metrics])
        self.figure = LOSS

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing yet."""

    def measured(self, weights: Path | Mapping[str, Tensor] | None = None) -> float:
        """Returns the figure, whose name is `figure` from then on.

        Args:
            weights: A checkpoint, or a state; None for those that the model has.
        """
        path = weights if isinstance(weights, Path) else None
        if isinstance(weights, Mapping):
            self.model.load_state_dict(weights)
        self.own.validate(self.model, self.datamodule, ckpt_path=path, verbose=False)
        names = [name for name in self.metrics.figures if name.startswith(DISTANCES)]
        self.figure = names[0] if names else LOSS
        return float(self.metrics.figures[names[0]] if names else self.own.callback_metrics[LOSS])
