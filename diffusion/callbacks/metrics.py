"""Generates images and measures them, at the end of a test and, if asked, of validations."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffusion.callbacks.generation import draws, generate, guides, sampling
from diffusion.common.files import check_writable, kept
from diffusion.common.hashing import weights_digest
from diffusion.common.validate import check_counts
from diffusion.metrics.card import Card, find_nearest
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.lenet import LeNet
from diffusion.metrics.generated import Generated, accuracy_by_label
from diffusion.metrics.judge import Judge
from diffusion.metrics.real_images import Data
from diffusion.metrics.report.card_page import render
from diffusion.metrics.report.record import hardware, notes, table, write
from diffusion.metrics.suite import Measure
from diffusion.metrics.text_score import TextMeasure
from diffusion.metrics.worth import described
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.distributed import one_first


class Metrics(L.Callback):
    """Measures n generated images; sample i has noise seed i, and what `data.measured` says for i.

    So the images, and the figures, do not depend on batch size or number of processes. They are
    logged as "test/NAME@n" and "val/NAME@n"; a test also prints them and writes metrics.json, with
    what they depend on, to the trainer's default_root_dir. An earlier metrics.json is renamed.

    Names: fd_lenet, kid_lenet with LeNet; fid, kid, is with Inception; each distance also with
    "_floor", that of held-out real images. Then label_accuracy (by the extractor), judge_accuracy,
    near_copies (also with "_floor"), nfe (network evaluations an image, counted; classifier_nfe
    those of what guides; of a cascade of all stages, and nfe_64x64 … of those of one size) and
    seconds_per_image. With text also clip_score, clip_r1 and clip_r5.
    With a card also precision, recall, f1, density and coverage (names:
    `diffusion.metrics.fidelity`), and the page card.html beside metrics.json.
    Data of points, and a module that generates nothing, is not measured.

    Args:
        n: Number of images.
        extractor: Network whose features are compared. By default LeNet where the data has labels,
            and none where it has not; then only figures without features are taken.
        batch_size: Images generated at once by one process.
        judge: Whether a support vector machine on pixels judges the labels too.
        memorization: Whether to count near copies of training images.
        every_n_validations: Measure at each so many validations.
        validate: Whether to measure at validations at all.
        cache: Folder for the trained extractor, for features of real images, and for what the
            module computes once: the states of texts.
        card: What an evaluation card measures besides; by default none is made.
        text: How well samples fit their captions, and by which scorer; by default not measured.

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
        card: Card | None = None,
        text: TextMeasure | None = None,
    ) -> None:
        check_counts("metrics", least=2, n=n)  # a covariance needs two
        every = {"every_n_validations": every_n_validations}
        check_counts("metrics", batch_size=batch_size, **every)
        if card:
            card.check(n)
        self.n = n
        self.card, self.text = card, text
        self.extractor = extractor
        self.batch_size = batch_size
        self.measure = Measure(Path(cache), Judge() if judge else None, memorization, card, text)
        self.every_n_validations = every_n_validations
        self.validate = validate
        self.cache = Path(cache)
        self.samples: Tensor | None = None
        self.figures: dict[str, float] = {}
        self._validations = 0
        self._active, self._warned = False, set[str]()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prepares the extractor, before any time is spent on images."""
        if isinstance(pl_module, Restorable):
            pl_module.cache = self.cache
        wanted = stage == "test" or (self.validate and stage in ("fit", "validate"))
        if not wanted or not hasattr(pl_module, "generate"):
            return
        data = _data(trainer)
        self._active = len(data.shape) == 3
        if not self._active:
            rank_zero_warn(f"Metrics: data of shape {tuple(data.shape)} is not measured, no images")
            return
        if self.text:
            if warning := self.text.check(data, guides(pl_module)):
                rank_zero_warn(warning)
        if self.extractor is None and data.num_classes:
            self.extractor = LeNet()
        if self.extractor is None:
            rank_zero_warn("Metrics: no labels and no extractor, so no distance; give Inception")
        check_writable(self.cache, "metrics.cache")
        every = (self.card or Card()).all(self.extractor)
        with one_first(trainer, "metrics"):
            for extractor in every:
                extractor.prepare(data, self.cache, progress=draws(trainer))
        about = (described(extractor, data) for extractor in every)
        self._warn(each["warning"] for each in about if "warning" in each)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures at every n-th validation, if asked to."""
        if not self.validate or not self._active or trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            self._run(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures, prints and writes metrics.json, and card.html if asked to."""
        if not self._active:
            return
        start = time.perf_counter()
        made = self._run(trainer, pl_module, "test")
        if trainer.is_global_zero:
            from rich import get_console

            record = self._record(trainer, pl_module, made)
            record["wall_seconds"] = time.perf_counter() - start
            record["date"] = datetime.now(UTC).isoformat(timespec="seconds")
            run = Path(trainer.default_root_dir)
            write(run / "metrics.json", record)
            get_console().print(table(self.figures, notes(record)))
            if self.card:
                nearest = find_nearest(self.card, made, _data(trainer), pl_module.device)
                with kept(run / "card.html") as part:
                    part.write_text(render(run.name, record, made, nearest), encoding="utf-8")

    def _run(self, trainer: L.Trainer, module: L.LightningModule, prefix: str) -> Generated:
        made = generate(trainer, module, self.n, self.batch_size, self.extractor)
        self.samples = made.images
        figures = {}
        if trainer.is_global_zero:
            figures = self.measure(made, _data(trainer), self.extractor, module.device)
            self._warn(self.measure.warnings)
        self.figures = trainer.strategy.broadcast(figures)
        for name, value in self.figures.items():
            module.log(f"{prefix}/{name}", value, sync_dist=True)
        return made

    def _warn(self, warnings: Iterable[str]) -> None:
        """Says each once."""
        for text in warnings:
            if text not in self._warned:
                self._warned.add(text)
                rank_zero_warn(text)

    def _record(
        self, trainer: L.Trainer, module: L.LightningModule, made: Generated
    ) -> dict[str, Any]:
        data, measure = _data(trainer), self.measure
        judge, checkpoint = measure.judge, trainer.ckpt_path
        path = None if checkpoint is None else str(checkpoint)
        weights = weights_digest(module.state_dict())
        return {
            "figures": self.figures,
            "accuracy_by_label": accuracy_by_label(made, data.num_classes),
            "warnings": measure.warnings,
            "n": self.n,
            "data": {"name": type(data).__name__, "shape": list(data.shape)},
            "labels": _asked(data),
            "reference": measure.reference,
            "extractor": described(self.extractor, data) if self.extractor else None,
            "card": self.card
            and {
                "k": self.card.k,
                "k_coverage": self.card.k_coverage,
                "extractors": measure.sets,
            },
            "judge": judge.describe() if judge else None,
            "text": measure.asked,
            "quantize": "floor(127.5 x + 128)",
            "sampler": sampling(module),
            "checkpoint": path and {"path": path, "fingerprint": weights},
            "hardware": {**hardware(module.device), "processes": trainer.world_size},
            "batch_size": self.batch_size,
        }


def _asked(data: Any) -> list[int] | str | None:
    """Returns which labels were asked for; None for all in turn, or where there are none."""
    return data.labels or (data.frequencies and "as often as in the training split")


def _data(trainer: L.Trainer) -> Data:
    data = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("Metrics: trainer.datamodule is None, expected a data module of images")
    return data
