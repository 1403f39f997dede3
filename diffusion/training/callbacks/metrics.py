"""Generates images and measures them, at the end of a test and, if asked, of validations."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffusion.metrics.extractor import Extractor
from diffusion.metrics.figures import Generated, deal
from diffusion.metrics.judge import Judge
from diffusion.metrics.lenet import LeNet
from diffusion.metrics.measure import Measure
from diffusion.metrics.progress import bar
from diffusion.metrics.quantize import quantize
from diffusion.metrics.record import hardware, table, write
from diffusion.metrics.split import Data


class Metrics(L.Callback):
    """Measures n generated images; sample i has noise seed i and label i mod K.

    So the images, and the figures, do not depend on batch size or number of processes. They are
    logged as "test/NAME@n" and "val/NAME@n"; a test also prints them and writes metrics.json, with
    what they depend on, to the trainer's default_root_dir. An earlier metrics.json is renamed.

    Names: fd_lenet, kid_lenet with LeNet; fid, kid, is with Inception; each distance also with
    "_floor", that of held-out real images. Then label_accuracy (by the extractor), judge_accuracy,
    near_copies and seconds_per_image. Data of points is not measured.

    Args:
        n: Number of images.
        extractor: Network whose features are compared. By default LeNet where the data has labels,
            and none where it has not; then only figures without features are taken.
        batch_size: Images generated at once by one process.
        judge: Whether a support vector machine on pixels judges the labels too.
        memorization: Whether to count near copies of training images.
        every_n_validations: Measure at each so many validations.
        validate: Whether to measure at validations at all.
        cache: Folder for the trained extractor and for features of real images.

    Attributes:
        samples: The last generated images, uint8 (n, C, H, W), on every process; None before.
        figures: The last figures, without prefix.
    """

    def __init__(
        self,
        n: int = 1000,
        extractor: Extractor | None = None,
        batch_size: int = 250,
        judge: bool = False,
        memorization: bool = False,
        every_n_validations: int = 1,
        validate: bool = False,
        cache: str = ".cache",
    ) -> None:
        counts = {"n": n, "batch_size": batch_size, "every_n_validations": every_n_validations}
        for key, value in counts.items():
            least = 2 if key == "n" else 1  # a covariance needs two
            if value < least:
                raise ValueError(f"Metrics.{key}: {value}, expected at least {least}")
        self.n = n
        self.extractor = extractor
        self.batch_size = batch_size
        self.measure = Measure(Path(cache), Judge() if judge else None, memorization)
        self.every_n_validations = every_n_validations
        self.validate = validate
        self.cache = Path(cache)
        self.samples: Tensor | None = None
        self.figures: dict[str, float] = {}
        self._validations = 0
        self._active = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prepares the extractor, before any time is spent on images."""
        if stage != "test" and not (self.validate and stage in ("fit", "validate")):
            return
        data = _data(trainer)
        self._active = len(data.shape) == 3
        if not self._active:
            rank_zero_warn(f"Metrics: data of shape {tuple(data.shape)} is not measured, no images")
            return
        if self.extractor is None and data.num_classes:
            self.extractor = LeNet()
        if self.extractor is None:
            rank_zero_warn("Metrics: no labels and no extractor, so no distance; give Inception")
            return
        # One process of a machine trains and stores it; the others then find it stored.
        if trainer.local_rank == 0:
            self.extractor.prepare(data, self.cache, progress=_draws(trainer))
        trainer.strategy.barrier("metrics")
        if trainer.local_rank != 0:
            self.extractor.prepare(data, self.cache, progress=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures at every n-th validation, if asked to."""
        if not self.validate or not self._active or trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            self._run(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures, prints and writes metrics.json."""
        if not self._active:
            return
        start = time.perf_counter()
        self._run(trainer, pl_module, "test")
        if trainer.is_global_zero:
            from rich import get_console

            record = self._record(trainer, pl_module)
            record["wall_seconds"] = time.perf_counter() - start
            record["date"] = datetime.now(UTC).isoformat(timespec="seconds")
            write(Path(trainer.default_root_dir) / "metrics.json", record)
            get_console().print(table(self.figures))

    def _run(self, trainer: L.Trainer, module: L.LightningModule, prefix: str) -> None:
        made = self._generate(trainer, module)
        self.samples = made.images
        figures = {}
        if trainer.is_global_zero:
            figures = self.measure(made, _data(trainer), self.extractor, module.device)
        self.figures = trainer.strategy.broadcast(figures)
        for name, value in self.figures.items():
            module.log(f"{prefix}/{name}", value, sync_dist=True)

    def _generate(self, trainer: L.Trainer, module: Any) -> Generated:
        data, device = _data(trainer), module.device
        labels = torch.arange(self.n) % data.num_classes if data.num_classes else None
        asked, seconds, stored = False, 0.0, {}
        rounds = deal(self.n, self.batch_size, trainer.global_rank, trainer.world_size)
        with bar("images", _draws(trainer)) as progress:
            task = progress.add_task("Generating", total=self.n)
            for mine in rounds:
                start = time.perf_counter()
                batch = {} if labels is None else {"label": labels[mine].to(device)}
                condition = module.condition(batch)
                asked = "label" in condition.values
                images = quantize(module.generate(condition, tuple(data.shape), mine))
                images.cpu()  # waits for the device, so that the time is the images'
                seconds += time.perf_counter() - start
                parts = {"index": torch.tensor(mine, device=device), "images": images}
                if self.extractor:
                    parts["features"], parts["logits"] = self.extractor(images)
                rows = {k: _gather(trainer, v) for k, v in parts.items()}
                index = rows.pop("index")
                for key, value in rows.items():
                    if key not in stored:
                        stored[key] = value.new_empty(self.n, *value.shape[1:])
                    stored[key][index] = value
                progress.advance(task, len(index))
                progress.refresh()  # beneath the trainer's own bar it is not redrawn by itself
        return Generated(
            images=stored["images"],
            labels=labels if asked else None,
            features=stored.get("features"),
            logits=stored.get("logits"),
            seconds=seconds / sum(map(len, rounds)),
        )

    def _record(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        data, judge = _data(trainer), self.measure.judge
        sampler, process = getattr(module, "sampler", None), getattr(module, "process", None)
        return {
            "figures": self.figures,
            "n": self.n,
            "data": {"name": type(data).__name__, "shape": list(data.shape)},
            "reference": self.measure.reference,
            "extractor": self.extractor.describe() if self.extractor else None,
            "judge": {"test_accuracy": judge.test_accuracy} if judge else None,
            "quantize": "floor(127.5 x + 128)",
            "sampler": type(sampler).__name__ if sampler else None,
            "steps": getattr(sampler, "steps", None) or getattr(process, "T", None),
            "checkpoint": trainer.ckpt_path,
            "hardware": {**hardware(module.device), "processes": trainer.world_size},
            "batch_size": self.batch_size,
        }


def _data(trainer: L.Trainer) -> Data:
    data = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("Metrics: trainer.datamodule is None, expected a data module of images")
    return data


def _gather(trainer: L.Trainer, x: Tensor) -> Tensor:
    """Returns all processes' rows, (world·B, ...), on the CPU."""
    return trainer.strategy.all_gather(x).reshape(-1, *x.shape[1:]).cpu()


def _draws(trainer: L.Trainer) -> bool:
    return trainer.is_global_zero and trainer.progress_bar_callback is not None
