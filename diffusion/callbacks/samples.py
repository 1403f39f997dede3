"""Pictures of what the model draws, while it trains and when it is tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from diffusion.callbacks.generation import draws_bars
from diffusion.callbacks.writer import origin
from diffusion.common.progress import bar
from diffusion.common.validate import check_counts
from diffusion.data.requests.base import in_order
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned, class_name, labelled
from diffusion.systems.averages import EMA
from diffusion.systems.generative import Generative
from diffusion.systems.trainer import callbacks_of, data_of


@dataclass(frozen=True)
class DrawnSamples:
    """Samples.

    Attributes:
        x_0: All of them, (n, ...).
        way: The first of each row, or all points, at some moments from x_T to x_0.
        names: The class of each row, or the text of each sample, or nothing.
        controls: What each row is controlled by, (rows, c, H, W) in [0, 1] each, or nothing.
    """

    x_0: Tensor
    way: list[Tensor]
    names: list[str]
    controls: list[Tensor]


class SamplePictures(L.Callback):
    """Draws the same samples (noise and labels) again and again, with raw and averaged weights.

    While fitting: `<run>/samples/step_N_raw.png` and `…_average.png`, and the loggers; at the end
    of testing: `<run>/samples.png` (a row a class, if there are classes) and
    `<run>/trajectory.png`, x_T on the left and x_0 on the right; the run is
    `trainer.default_root_dir`. Rows have the names of their classes, or samples their texts, where
    the model reads them. With controls a row begins with its control, and is of one request. Points
    are drawn as clouds. Of a module that draws nothing, or vectors of more than two dimensions,
    there is no picture.

    Args:
        every_n_steps: How often while fitting; 0 is never.
        columns: Samples a row.
        rows: How many rows; by default one a class, or as many as columns. Where the data has
            texts the samples are of the first ones that it asks for.
        points: How many points, for data of points.
        moments: How many moments the trajectory shows, closer together towards x_0.
        batch_size: Samples drawn at once.

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
        batch_size: int = 250,
    ) -> None:
        check_counts("samples", least=0, every_n_steps=every_n_steps)
        check_counts("samples", columns=columns, rows=rows, points=points, moments=moments)
        check_counts("samples", batch_size=batch_size)
        self.every_n_steps, self.columns, self.rows = every_n_steps, columns, rows
        self.points, self.moments, self.batch_size = points, moments, batch_size
        self.drawn = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What a resumed run starts from was drawn before."""
        self.drawn = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Draws every n optimizer steps, on the first process only."""
        step = trainer.global_step
        if not self.every_n_steps or step % self.every_n_steps or step == self.drawn:
            return
        self.drawn = step
        if not trainer.is_global_zero or not _can_be_shown(pl_module):
            return
        self._save(trainer, pl_module, f"step_{step:07d}", "raw")
        for ema in callbacks_of(trainer):
            if isinstance(ema, EMA) and ema.average:
                with ema.averaged(pl_module):
                    self._save(trainer, pl_module, f"step_{step:07d}", "average")

    def _save(self, trainer: L.Trainer, module: L.LightningModule, step: str, kind: str) -> None:
        """Draws samples, for the run's folder and for loggers that take images."""
        path = Path(trainer.default_root_dir) / "samples" / f"{step}_{kind}.png"
        picture = self._page(self._draw(trainer, module), path.stem)
        pictures.save(picture, path, origin(trainer, module))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"samples/{kind}", [str(path)], step=trainer.global_step)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the samples, and the way to the first of each row."""
        if not trainer.is_global_zero or not _can_be_shown(pl_module):
            return
        run, drawn = Path(trainer.default_root_dir), self._draw(trainer, pl_module)
        about = origin(trainer, pl_module)
        pictures.save(self._page(drawn, "x_0"), run / "samples.png", about)
        if drawn.x_0.ndim == 2:
            way = pictures.clouds(drawn.way, ["x_T", *[""] * (len(drawn.way) - 2), "x_0"])
        else:
            way = pictures.grid(torch.stack(drawn.way, 1).flatten(0, 1), len(drawn.way))
            of_each = len(drawn.names) == len(drawn.x_0)
            way = labelled(way, drawn.names[:: self.columns if of_each else 1])
        pictures.save(way, run / "trajectory.png", about)

    def _page(self, drawn: DrawnSamples, title: str) -> Tensor:
        """Returns the samples as a picture."""
        if drawn.x_0.ndim == 2:
            return pictures.clouds([drawn.x_0], [title])
        if drawn.controls:
            m = len(drawn.controls) + self.columns
            page = pictures.after_controls(drawn.controls, drawn.x_0, self.columns)
            names = drawn.names or [""] * (len(page) // m)
            return captioned(page, [x for name in names for x in (name, *[""] * (m - 1))], m)
        if len(drawn.names) == len(drawn.x_0) > len(drawn.way[0]):
            return captioned(drawn.x_0, drawn.names, self.columns)
        return labelled(pictures.grid(drawn.x_0, self.columns), drawn.names)

    @torch.no_grad()
    def _draw(self, trainer: L.Trainer, module: Any) -> DrawnSamples:
        """Draws all samples, `batch_size` at once."""
        data, parts = data_of(trainer), list[DrawnSamples]()
        texts, points = data.texts is not None, len(data.shape) != 3
        rows = self.rows or (not texts and data.num_classes) or self.columns
        n = self.points if points else rows * self.columns
        rounds = in_order(n, self.batch_size)
        last = module.moments - 1
        left = torch.linspace(1, 0, min(self.moments, last + 1)) ** 2  # closer together towards x_0
        kept = {*((1 - left) * last).round().int().tolist()}
        with bar("steps", draws_bars(trainer)) as progress:
            task = progress.add_task("Drawing", total=module.moments * len(rounds))
            for numbers in rounds:
                if texts or data.controls:
                    row = self.columns if data.controls else 1
                    batch = data.request([i // row for i in numbers])
                else:
                    batch = self._batch(data, numbers, n, rows)
                batch = data.on_after_batch_transfer(move_data_to_device(batch, module.device), 0)
                first = [i for i, j in enumerate(numbers) if points or j % self.columns == 0]
                names: list[str] = []
                if "text" in batch and module.reads_anything:
                    names = [batch["text"][i] for i in first] if data.controls else batch["text"]
                elif "label" in batch and module.reads_labels and not points:
                    names = [class_name(data.classes, y) for y in batch["label"][first].tolist()]
                way, x = [], torch.empty(0)
                for i, x in enumerate(module.trajectory(batch, numbers)):
                    if i in kept:
                        way.append(module.decoded(x[first]).cpu())
                    progress.advance(task)
                    progress.refresh()  # beneath the trainer's own bar it is not redrawn by itself
                controls = [batch[k][first].cpu() for k in data.controls if k in batch]
                parts.append(DrawnSamples(module.decoded(x).cpu(), way, names, controls))
        way = [torch.cat(moment) for moment in zip(*(part.way for part in parts))]
        x_0 = torch.cat([part.x_0 for part in parts])
        controls = [torch.cat(one) for one in zip(*(part.controls for part in parts))]
        return DrawnSamples(x_0, way, [name for part in parts for name in part.names], controls)

    def _batch(self, data: Any, numbers: Sequence[int], n: int, rows: int) -> dict[str, Tensor]:
        """Returns what samples are to be where each row has a class."""
        index = torch.tensor(numbers)
        if not data.num_classes:
            return {"index": index}
        # A sample's number still says its label, i mod K, for data that goes by the number.
        label = index * rows // n % data.num_classes
        return {"index": label + data.num_classes * (index % self.columns), "label": label}


def _can_be_shown(module: L.LightningModule) -> bool:
    """Whether it draws what can be looked at: pictures, or points of a plane."""
    return isinstance(module, Generative) and (len(module.shape) == 3 or module.shape == (2,))
