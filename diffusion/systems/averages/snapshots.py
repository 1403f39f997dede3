"""Snapshots of two averages while training, from which any other is made afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from safetensors.torch import save_file

from diffusion.common.files import kept
from diffusion.common.validate import check_counts
from diffusion.interop.exported_model import halves
from diffusion.systems.averages.ema import EMA
from diffusion.systems.averages.power import Power
from diffusion.systems.averages.schedule_free import ScheduleFreeAdamW
from diffusion.systems.trainer import attributes, training_steps


class Snapshots(L.Callback):
    """Tracks power-function averages, and writes them every n steps (Karras et al. 2024, 3.2).

    To `<run>/snapshots/step_N_WIDTH.safetensors`, in half precision and with the names of the
    trained parameters: 2 bytes a parameter and file, which is said when training begins. The
    averages themselves take 4 bytes a parameter each, in memory and in checkpoints. What training
    evaluates with stays the business of `EMA`; `diffusion average` reads the snapshots.

    Args:
        every_n_steps: How often, in optimizer steps, and at the end; 0 tracks nothing.
        widths: σ_rel of the averages; the paper's are 0.05 and 0.1.
        folder: Where to; by default that of the run.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        every_n_steps: int = 0,
        widths: Sequence[float] = (0.05, 0.1),
        folder: str | None = None,
    ) -> None:
        check_counts("snapshots", least=0, every_n_steps=every_n_steps)
        if every_n_steps and not 0 < len(widths) == len({name(w) for w in widths}):
            raise ValueError(f"snapshots.widths: {list(widths)}; expected several different ones")
        self.every_n_steps, self.folder = every_n_steps, folder
        self.tracked = {name(w): EMA(rate=Power(w)) for w in widths if every_n_steps}
        self._written = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says what the disk has to hold; averages begin with the training, or go on.

        Raises:
            ValueError: If training goes on from steps that were not tracked, or the weights are not
                what the optimizer is after.
        """
        if self.tracked and any(isinstance(one, ScheduleFreeAdamW) for one in trainer.optimizers):
            raise ValueError(
                f"snapshots.every_n_steps: {self.every_n_steps}; expected 0, as ScheduleFreeAdamW "
                "keeps the average itself"
            )
        self._written = trainer.global_step
        for ema in self.tracked.values():
            if trainer.global_step != ema.steps:
                raise ValueError(
                    f"snapshots.every_n_steps: {self.every_n_steps}; expected 0, as the run's "
                    f"first {trainer.global_step} steps were not tracked"
                )
            ema.on_train_start(trainer, pl_module)
        if not self.tracked:
            return
        size = sum(2 * p.numel() for p in pl_module.parameters() if p.requires_grad) / 1e6
        total = training_steps(trainer)
        last = "" if total is None else (
            f", {-(-total // self.every_n_steps) * len(self.tracked) * size:,.0f} MB in all"
        )  # fmt: skip
        rank_zero_info(
            f"snapshots: {len(self.tracked)} files of {size:,.1f} MB every "
            f"{self.every_n_steps:,} steps{last}"
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Averages once an optimizer step, and writes every n-th."""
        for ema in self.tracked.values():
            ema.on_train_batch_end(trainer, pl_module)
        if self.tracked and trainer.global_step % self.every_n_steps == 0:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the last."""
        if self.tracked:
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        """Writes today's averages, once, in the first process."""
        step = trainer.global_step
        if step == self._written or attributes(trainer).fast_dev_run:
            return
        self._written = step
        if not trainer.is_global_zero:
            return
        folder = Path(self.folder or Path(trainer.default_root_dir) / "snapshots")
        for width, ema in self.tracked.items():
            about = {"format": "pt", "step": str(step), "width": width}
            with kept(folder / f"step_{step:07d}_{width}.safetensors") as part:
                save_file(halves(ema.average), part, metadata=about)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, and how many steps they are of."""
        return {w: {"average": x.average, "steps": x.steps} for w, x in self.tracked.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for width in self.tracked.keys() & state_dict.keys():
            self.tracked[width].average = dict(state_dict[width]["average"])
            self.tracked[width].steps = state_dict[width]["steps"]


def name(width: float) -> str:
    """Returns a width as files and checkpoints are named after it."""
    return f"{width:.4g}"
