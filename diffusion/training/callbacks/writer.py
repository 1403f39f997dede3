"""`diffusion predict` writes what it draws to disk, and goes on where it stopped."""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from diffusion.files import written_aside
from diffusion.metrics.quantize import quantize
from diffusion.progress import bar
from diffusion.training import pictures
from diffusion.training.captioned import captioned

if TYPE_CHECKING:
    from rich.progress import Progress

GRID = 64  # images at most on the page with captions


class Writer(L.Callback):
    """Writes predictions to `<run>/predictions`, image i from the noise of number i.

    A file that is there is not drawn again, so a second call goes on where the first stopped; what
    made the files is noted in `settings.json`, and a folder with other settings is refused. Where
    texts were asked for, `captions.json` has them all, and `grid.png` the first images with theirs.

    Args:
        folder: Where to; by default `<trainer.default_root_dir>/predictions`.
        format: "png": one `000042_3.png` an image, index and label; "npz": `samples.npz` with
            "images" (N, H, W, C) uint8, "labels" and "index", as evaluation suites read it.
    """

    def __init__(self, folder: str | None = None, format: Literal["png", "npz"] = "png") -> None:
        self.folder, self.format = folder, format
        self.settings: dict[str, Any] = {}
        self.bar: Progress | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Looks at what is there already."""
        if stage != "predict" or not hasattr(pl_module, "generate"):
            return
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if self.format == "png" and len(data.shape) != 3:
            raise ValueError("writer.format: png; expected npz for data of points")
        self.path = Path(self.folder or Path(trainer.default_root_dir) / "predictions")
        self.path.mkdir(parents=True, exist_ok=True)
        self._same_settings(trainer)
        data.done = {int(file.stem.split("_")[0]) for file in self._drawn()}
        data.allow_zero_length_dataloader_with_multiple_devices = True  # little may be left to draw

    def _drawn(self) -> list[Path]:
        """The images that are there; other files that begin with a digit are somebody else's."""
        ours = re.compile(rf"\d{{6,}}(_\d+)?\.{'npy' if self.format == 'npz' else 'png'}")
        return sorted(file for file in self.path.iterdir() if ours.fullmatch(file.name))

    def _same_settings(self, trainer: L.Trainer) -> None:
        note, mine = self.path / "settings.json", json.dumps(self.settings, sort_keys=True)
        if note.exists() and note.read_text() == mine:
            return
        made = any(file.suffix in (".png", ".npy", ".npz") for file in self.path.iterdir())
        if made and note.exists():
            raise ValueError(
                f"writer.folder: {self.path} holds images made with other settings "
                f"({note.name}); expected an empty folder or the same settings"
            )
        if trainer.is_global_zero:
            with written_aside(note) as aside:
                aside.write_text(mine)

    def on_predict_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Shows how many images of this process are drawn, and how fast."""
        if self.bar is not None:
            return
        # Not in on_predict_start: the trainer's own bar resets the console there, and comes later.
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        draw = trainer.is_global_zero and trainer.progress_bar_callback is not None
        self.bar = bar("images", draw)
        left = -(-(data.samples - len(data.done)) // trainer.world_size)
        self.task = self.bar.add_task("Drawing", total=left)
        self.bar.start()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes a batch."""
        module: Any = pl_module
        index, label = batch["index"].tolist(), module.condition(batch).values.get("label")
        labels = [-1] * len(index) if label is None else label.tolist()
        if outputs.ndim == 4:
            outputs = quantize(outputs)
        for i, y, image in zip(index, labels, outputs.cpu()):
            name = f"{i:06d}" if y < 0 else f"{i:06d}_{y}"
            if self.format == "png":
                pictures.save(image, self.path / f"{name}.png")
            else:
                with written_aside(self.path / f"{name}.npy") as aside, aside.open("wb") as file:
                    np.save(file, image.numpy())
        if self.bar is not None:
            self.bar.advance(self.task, len(index))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the bar, and says where the images are."""
        done, self.bar = self.bar, None
        if done is None:  # nothing was left to draw
            return
        task = done.tasks[0]
        done.stop()
        if task.completed and task.elapsed:
            rate = task.completed / task.elapsed
            rank_zero_info(f"{task.completed:.0f} images, {rate:.1f} a second: {self.path}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gathers what all processes drew; also where a process had nothing to draw."""
        if stage != "predict":
            return
        trainer.strategy.barrier()
        files = self._drawn()
        if not trainer.is_global_zero or not files:
            return
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        numbers = [int(file.stem.split("_")[0]) for file in files]
        texts = data.request(numbers).get("text") if hasattr(data, "texts") else None
        if texts is not None:
            self._captions(files, numbers, texts)
        if self.format == "npz":
            self._gather(files, numbers)

    def _captions(self, files: list[Path], numbers: list[int], texts: list[str]) -> None:
        """Writes `captions.json`, number to text, and `grid.png`, the first images with theirs."""
        with written_aside(self.path / "captions.json") as aside:
            note = {f"{number:06d}": text for number, text in zip(numbers, texts)}
            aside.write_text(json.dumps(note, indent=1, ensure_ascii=False), encoding="utf-8")
        first = torch.stack([read(file) for file in files[:GRID]])
        columns = math.ceil(len(first) ** 0.5)
        shown = captioned(first.float() / 127.5 - 1, texts[:GRID], columns)
        pictures.save(shown, self.path / "grid.png")

    def _gather(self, files: list[Path], numbers: list[int]) -> None:
        """Writes `samples.npz`."""
        images = np.stack([np.load(file) for file in files])
        images = images.transpose(0, 2, 3, 1) if images.ndim == 4 else images
        more = {"index": np.array(numbers)}
        labels = [file.stem.split("_")[1:] for file in files]
        if labels[0]:
            more["labels"] = np.array([int(label) for (label,) in labels])
        with written_aside(self.path / "samples.npz") as aside:
            np.savez_compressed(aside, images=images, **more)  # pyright: ignore[reportArgumentType]


def read(file: Path) -> Tensor:
    """Returns an image that was written, uint8 (C, H, W)."""
    from torchvision.io import decode_image

    if file.suffix == ".npy":
        return torch.from_numpy(np.load(file))
    return decode_image(str(file))
