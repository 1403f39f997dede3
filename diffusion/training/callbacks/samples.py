"""Pictures of what the model draws, while it trains and when it is tested."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion.counts import check_counts
from diffusion.training import pictures
from diffusion.training.callbacks.ema import EMA
from diffusion.training.module import evaluating


class Samples(L.Callback):
    """Draws the same samples (noise and labels) again and again, with raw and averaged weights.

    While fitting: `<run>/samples/step_N_raw.png` and `…_average.png`, and the loggers; at the end
    of testing: `<run>/samples.png` (a row a class, if there are classes) and
    `<run>/trajectory.png`, x_T on the left and x_0 on the right; the run is
    `trainer.default_root_dir`. Points are drawn as clouds.

    Args:
        every_n_steps: How often while fitting; 0 is never.
        columns: Samples a row.
        rows: How many rows; by default one a class, or as many as columns. Where the data has
            texts the samples are of the first ones that it asks for.
        points: How many points, for data of points.
        moments: How many moments the trajectory shows, closer together towards x_0.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        columns: int = 10,
        rows: int | None = None,
        points: int = 1000,
        moments: int = 10,
    ) -> None:
        check_counts("samples", least=0, every_n_steps=every_n_steps)
        check_counts("samples", columns=columns, rows=rows, points=points, moments=moments)
        self.every_n_steps, self.columns, self.rows = every_n_steps, columns, rows
        self.points, self.moments, self.drawn = points, moments, -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What a resumed run starts from was drawn before."""
        self.drawn = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any
    ) -> None:
        """Draws every n optimizer steps, on the first process only."""
        step = trainer.global_step
        if not self.every_n_steps or step % self.every_n_steps or step == self.drawn:
            return
        if not hasattr(pl_module, "generate"):  # a classifier draws nothing
            return
        self.drawn = step
        if not trainer.is_global_zero:
            return
        self._save(trainer, self._draw(trainer, pl_module)[-1:], f"step_{step:07d}_raw")
        for ema in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(ema, EMA) and ema.average:
                with ema.averaged(pl_module):
                    drawn = self._draw(trainer, pl_module)[-1:]
                self._save(trainer, drawn, f"step_{step:07d}_average")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the samples, and the way to the first of each row."""
        if not trainer.is_global_zero or not hasattr(pl_module, "generate"):
            return
        run, moments = Path(trainer.default_root_dir), self._draw(trainer, pl_module)
        if moments[-1].ndim == 4:
            way = torch.stack([x[:: self.columns] for x in moments], 1)
            pictures.save(pictures.grid(moments[-1], self.columns), run / "samples.png")
            pictures.save(pictures.grid(way.flatten(0, 1), len(moments)), run / "trajectory.png")
        else:
            pictures.save(pictures.clouds(moments[-1:], ["x_0"]), run / "samples.png")
            titles = ["x_T", *[""] * (len(moments) - 2), "x_0"]
            pictures.save(pictures.clouds(moments, titles), run / "trajectory.png")

    def _draw(self, trainer: L.Trainer, module: Any) -> list[Tensor]:
        """Returns the samples at some moments from x_T to x_0, each (B, ...)."""
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        texts = getattr(data, "texts", None) is not None
        rows = self.rows or (not texts and data.num_classes) or self.columns
        n = rows * self.columns if len(data.shape) == 3 else self.points
        batch: dict[str, Any] = {"index": torch.arange(n)}
        if texts:
            batch = data.request(range(n))
        elif data.num_classes:
            # A sample's number still says its label, i mod K, for data that goes by the number.
            batch["label"] = batch["index"] * rows // n % data.num_classes
            batch["index"] = batch["label"] + data.num_classes * (batch["index"] % self.columns)
        batch = move_data_to_device(batch, module.device)
        with evaluating(module):
            cond = module.condition(data.on_after_batch_transfer(batch, 0))
        steps = len(module.sampler.times(module.process))
        left = torch.linspace(1, 0, min(self.moments, steps)) ** 2  # closer together towards x_0
        keep = set(((1 - left) * (steps - 1)).round().int().tolist())
        walk = enumerate(module.trajectory(cond, data.shape, range(n)))
        return [x.cpu() for i, x in walk if i in keep]

    def _save(self, trainer: L.Trainer, moments: list[Tensor], name: str) -> None:
        """Writes the last moment to the run's folder and to loggers that take images."""
        points = moments[-1].ndim == 2
        picture = (
            pictures.clouds(moments, [name]) if points else pictures.grid(moments[-1], self.columns)
        )
        path = Path(trainer.default_root_dir) / "samples" / f"{name}.png"
        pictures.save(picture, path)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                key = f"samples/{name.rsplit('_', 1)[-1]}"
                logger.log_image(key, [str(path)], step=trainer.global_step)  # pyright: ignore
