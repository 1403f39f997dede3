"""`diffusion predict` writes what it draws to disk, and goes on where it stopped."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from diffusion.callbacks import predictions
from diffusion.callbacks.generation import draws_bars
from diffusion.callbacks.recipe import recipe
from diffusion.common.files import check_writable, name_by_time, written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.common.progress import bar
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned, class_name
from diffusion.spec import Batch
from diffusion.systems.generative import Generative
from diffusion.systems.trainer import callbacks_of, data_of

if TYPE_CHECKING:
    from rich.progress import Progress

GRID = 64  # images at most on the page with captions
CLOUD = 10_000  # points at most


class Writer(L.Callback):
    """Writes predictions to `<run>/predictions`, image i from the noise of number i.

    A file that is there is not drawn again, so a second call goes on where the first stopped. All
    that the images depend on, see `recipe`, is noted in `settings.json`, and their texts, if there
    are any, in `captions.json`; a folder whose images are of other settings, labels or texts is
    refused. `grid.png` has the first images with what they were asked to be, after their controls.

    A system that is no `Generative` may predict a list of texts: they go to `texts.jsonl` of the
    folder, one line a sample, and to a file of each further process; an earlier one is renamed.

    Args:
        folder: Where to; by default `<trainer.default_root_dir>/predictions`.
        format: "png": one `000042_3.png` an image, index and label; "npz": `samples.npz` with
            "images" (N, H, W, C) uint8, "labels" and "index", as evaluation suites read it.
        metadata: Whether pictures say in text chunks how they were made, see `origin`, also the
            grids that are drawn in training and testing.
        upsampled: The prompts that texts were made of, by what the texts end with; the page shows
            both.
    """

    def __init__(
        self,
        folder: str | None = None,
        format: Literal["png", "npz"] = "png",
        metadata: bool = True,
        upsampled: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.format, self.metadata = folder, format, metadata
        self.upsampled = upsampled or {}
        self.bar: Progress | None = None
        self.path: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets the data skip what is there already, once the weights are in place."""
        if stage != "predict":
            return
        folder = Path(self.folder or Path(trainer.default_root_dir) / "predictions")
        if not isinstance(pl_module, Generative):
            number = f"_{trainer.global_rank}" if trainer.global_rank else ""
            self.lines = folder / f"texts{number}.jsonl"
            if self.lines.exists():
                self.lines.rename(name_by_time(self.lines))
            return
        if self.format == "png" and len(pl_module.shape) != 3:
            raise ValueError("writer.format: png; expected npz for points and vectors")
        self.data = data_of(trainer)
        self.path = folder
        check_writable(folder, "writer.folder")
        self.data.done = partial(self._done, trainer, pl_module, folder)

    def _done(self, trainer: L.Trainer, module: L.LightningModule, folder: Path) -> set[int]:
        """Returns the numbers of the samples that are there, made as those to come will be."""
        settings = {**recipe(trainer, module, self.data), "writer": {"format": self.format}}
        predictions.check_settings(folder, settings)
        self.texts = predictions.asked_captions(folder, self.data)
        drawing = settings["model"].get("stages", [settings["model"]])
        weights = [stage["weights"] for stage in drawing if "weights" in stage]
        self.about = origin(trainer, module, weights)
        made = set(predictions.numbered(folder))
        self.left = -(-(self.data.samples - len(made)) // trainer.world_size)
        if trainer.is_global_zero:
            predictions.note(folder / predictions.SETTINGS, settings)
            if self.texts:
                predictions.note(folder / predictions.CAPTIONS, self.texts)
        if self.left <= 0:
            rank_zero_info(f"Nothing is left to draw: {folder} has {len(made)} samples")
        return made

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Shows how many images of this process are drawn, and how fast."""
        # Not in on_predict_start: the trainer's own bar resets the console there, and comes later.
        if self.bar is None and self.path is not None:
            self.bar = bar("images", draws_bars(trainer))
            self.task = self.bar.add_task("Drawing", total=self.left)
            self.bar.start()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        *_args: Any,
        **_options: Any,
    ) -> None:
        """Writes a batch; texts, of a system that draws nothing, as lines of a file."""
        if self.path is None:
            if isinstance(outputs, list):
                predictions.append_texts(self.lines, batch["index"].tolist(), outputs)
            return
        module: Any = pl_module
        samples = (quantize(outputs) if outputs.ndim == 4 else outputs).cpu()
        asked = predictions.asked_for(module, batch, self.data)
        for sample, name, about in zip(samples, predictions.stems(module, batch), asked):
            if self.format == "png":
                chunks = {**self.about, **about} if self.metadata else {}
                pictures.save(sample, self.path / f"{name}.png", chunks)
            else:
                with written_aside(self.path / f"{name}.npy", durable=False) as aside:
                    np.save(aside, sample.numpy())
        if self.bar is not None:
            self.bar.advance(self.task, len(samples))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the bar, and says where the images are."""
        if self.path is None and not self.lines.exists():
            rank_zero_info(f"writer: {type(pl_module).__name__} draws nothing; nothing is written")
        task = None if self.bar is None else self.bar.tasks[0]
        self._end_bar()
        if task is not None and task.completed and task.elapsed:
            rate = task.completed / task.elapsed
            rank_zero_info(f"{task.completed:.0f} images, {rate:.1f} a second: {self.path}")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Ends the bar."""
        self._end_bar()

    def _end_bar(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gathers what all processes drew; also where a process had nothing to draw."""
        if stage != "predict" or self.path is None:
            return
        trainer.strategy.barrier()
        made = predictions.numbered(self.path)
        if not trainer.is_global_zero or not made:
            return
        pictures.save(self._first(made), self.path / "grid.png", self.about)
        if self.format == "npz":
            predictions.gather(made, self.path / "samples.npz")

    def _first(self, made: dict[int, Path]) -> Tensor:
        """Returns the first images, each with its text or class if it has one, or a cloud."""
        pictured = len(self.data.shape) == 3
        shown = dict(list(made.items())[: GRID if pictured else CLOUD])
        samples = torch.stack([predictions.read_sample(file) for file in shown.values()])
        if not pictured:
            return pictures.clouds([samples], ["x_0"])
        labels = [predictions.label_of(file) for file in shown.values()]
        names = ["" if y is None else class_name(self.data.classes, y) for y in labels]
        texts = [self.texts.get(f"{number:06d}", name) for number, name in zip(shown, names)]
        shorter = [[s for end, s in self.upsampled.items() if x.endswith(end)] for x in texts]
        texts = [f"{found[0]} → {x}" if found else x for x, found in zip(texts, shorter)]
        images, columns = scaled(samples), math.ceil(len(samples) ** 0.5)
        batch = self.data.request([*shown]) if self.data.controls else {}
        batch = self.data.on_after_batch_transfer(batch, 0)
        if controls := [batch[name] for name in self.data.controls if name in batch]:
            images = pictures.after_controls(controls, images, 1)
            columns *= len(controls) + 1
            texts = [x for text in texts for x in (*[""] * len(controls), text)]
        return captioned(images, texts, columns) if any(texts) else pictures.grid(images, columns)


def origin(trainer: L.Trainer, module: Any, weights: Sequence[str] | None = None) -> dict[str, str]:
    """Returns how pictures are made, for their text chunks: seed, sampler and weights.

    Args:
        trainer: Whose `Writer` may say that they say nothing, which gives {}.
        module: What draws.
        weights: Digests of the weights of its stages; by default of those in place.
    """
    if not all(c.metadata for c in callbacks_of(trainer) if isinstance(c, Writer)):
        return {}
    return predictions.origin_of(module, weights)
