"""Generates images and measures them, at the end of a test and, if asked, of validations."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from rich import get_console
from torch import Tensor

from diffusion.callbacks.generation import (
    by_stage,
    digests,
    draws_bars,
    generate,
    made_by,
    sampling,
    without_controls,
)
from diffusion.common.files import check_writable, kept
from diffusion.common.validate import check_counts
from diffusion.metrics.base import Figure, Measure, SampleBatch
from diffusion.metrics.captions.text_score import TextMeasure
from diffusion.metrics.distance import FrechetDistance, KernelDistance
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.lenet import LeNet
from diffusion.metrics.fidelity import Fidelity
from diffusion.metrics.inception_score import InceptionScore
from diffusion.metrics.judge import JudgeAccuracy, LabelAccuracy
from diffusion.metrics.neighbours import NearCopies
from diffusion.metrics.report.card import Card, find_nearest
from diffusion.metrics.report.card_page import render_card
from diffusion.metrics.report.record import (
    figures_table,
    hardware,
    notes,
    stored,
    write_record,
)
from diffusion.systems.base import System
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.generative import Generative
from diffusion.systems.trainer import data_of, one_first


class Metrics(L.Callback):
    """Measures n generated images; sample i has noise seed i, and what `data.measured` says for i.

    So the images, and the figures, do not depend on batch size or number of processes. They are
    logged as "test/NAME@n" and "val/NAME@n"; a test also prints them and writes metrics.json, with
    what they depend on, to the run's folder. An earlier metrics.json is renamed.

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
            and none where it has not, nor at validations where `measures` says what to take; then
            only figures without features are taken.
        batch_size: Images generated at once by one process.
        judge: Whether a support vector machine on pixels judges the labels too.
        memorization: Whether to count near copies of training images.
        every_n_validations: Measure at each so many validations.
        validate: Whether to measure at validations at all.
        cache: Folder for the trained extractor, for features of real images, and for what the
            module computes once: the states of texts.
        card: What an evaluation card measures besides; by default none is made.
        text: How well samples fit their captions, and by which scorer; by default not measured.
        measures: More metrics, of one's own.

    Attributes:
        samples: The first of the last generated images, uint8 (N, C, H, W); None before.
        figures: The numbers of the last figures by name, without prefix.
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
        measures: Sequence[Measure] = (),
    ) -> None:
        check_counts("metrics", least=2, n=n)  # a covariance needs two
        counts = {"batch_size": batch_size, "every_n_validations": every_n_validations}
        check_counts("metrics", **counts)
        if card:
            card.check(n)
        self.n, self.batch_size, self.cache = n, batch_size, Path(cache)
        self.extractor, self.card, self.text = extractor, card, text
        self.judge, self.memorization, self.measures = judge, memorization, measures
        self.validate, self.every_n_validations = validate, every_n_validations
        self.samples: Tensor | None = None
        self.figures: dict[str, float] = {}
        self._validations = 0
        self._measures: list[Measure] | None = None
        self._base: dict[str, Figure] | None = None
        self._warned = set[str]()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prepares the extractor, before any time is spent on images."""
        if isinstance(pl_module, Restorable):
            pl_module.cache = self.cache
        wanted = stage == "test" or (self.validate and stage in ("fit", "validate"))
        if not wanted or not isinstance(pl_module, Generative):
            return
        if isinstance(pl_module, System):
            pl_module.check_data(stage)  # before the features of other data are computed
        if (data := data_of(trainer)) is None:
            raise ValueError("Metrics: trainer.datamodule is None; expected one of images")
        if len(shape := pl_module.shape) != 3:
            rank_zero_warn(f"Metrics: samples of shape {shape} are no images, not measured")
            return
        check_counts("metrics", least=trainer.world_size, n=self.n)
        if judges := [*([self.text] if self.text else []), *self.measures]:
            by = made_by(pl_module)
            for judge in judges:
                self._warn([judge.check(data, by)])
        named = bool(self.measures) and stage != "test"
        if self.extractor is None and data.num_classes and not named:
            self.extractor = LeNet()
        if self.extractor is None and not named:
            rank_zero_warn("Metrics: no labels and no extractor, so no distance; give Inception")
        check_writable(self.cache, "metrics.cache")
        self._measures, self._base = self._wanted(), None
        # States are in float64, which MPS lacks.
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        with one_first(trainer, "metrics"):
            for measure in self._measures:
                measure.to(device).prepare(data, self.cache, progress=draws_bars(trainer))
                self._warn(measure.warnings)

    def _wanted(self) -> list[Measure]:
        """Returns the metrics that the settings ask for."""
        extractor, card, found = self.extractor, self.card, list[Measure]()
        if extractor:
            found += [FrechetDistance(extractor), KernelDistance(extractor)]
            if extractor.score:
                found.append(InceptionScore(extractor, self.n, min(10, self.n)))
            found.append(LabelAccuracy(extractor))
        if card:
            found += [Fidelity(x, card.k, card.k_coverage) for x in card.all(extractor)]
        found += [self.text] if self.text else []
        found += [JudgeAccuracy()] if self.judge else []
        found += [NearCopies(self.n)] if self.memorization else []
        return [*found, *self.measures]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures at every n-th validation, if asked to."""
        if not self.validate or self._measures is None or trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            self._run(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures, prints and writes metrics.json, and card.html if asked to."""
        if self._measures is None:
            return
        start = time.perf_counter()
        figures, described, made = self._run(trainer, pl_module, "test")
        if trainer.is_global_zero:
            record = {**stored(figures), **self._about(trainer, pl_module), **described}
            record["wall_seconds"] = time.perf_counter() - start
            record["date"] = datetime.now(UTC).isoformat(timespec="seconds")
            run = Path(trainer.default_root_dir)
            write_record(run / "metrics.json", record)
            get_console().print(figures_table(self.figures, notes(record)))
            if self.card:
                data = data_of(trainer)
                nearest = find_nearest(self.card, made.images, data, pl_module.device)
                with kept(run / "card.html") as part:
                    part.write_text(render_card(run.name, record, made, nearest), encoding="utf-8")

    def _run(
        self, trainer: L.Trainer, module: L.LightningModule, prefix: str
    ) -> tuple[dict[str, Figure], dict[str, Any], SampleBatch]:
        """Returns figures, on the first process what they were measured with, and first images."""
        measures, base = self._measures or [], self._uncontrolled(trainer, module)
        for measure in measures:
            measure.reset()
        costs, made = generate(trainer, module, self.n, self.batch_size, measures)
        self.samples = made.images
        figures, about, warnings = dict[str, Figure](), dict[str, Any](), dict[str, None]()
        for measure in measures:
            with measure.sync_context():  # the states are those of all processes
                if trainer.is_global_zero:
                    figures |= measure.evaluate()
                    about |= measure.entries
                    warnings |= dict.fromkeys(measure.warnings)
        self._warn(warnings)
        figures = trainer.strategy.broadcast(figures | base | costs)
        self.figures = {name: figure.value for name, figure in figures.items()}
        for name, value in self.figures.items():
            module.log(f"{prefix}/{name}", value, sync_dist=True)
        return figures, {"warnings": list(warnings), **about}, made

    def _uncontrolled(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Figure]:
        """Returns figures of samples without controls, drawn once, as the base stays."""
        beside = [measure for measure in self._measures or [] if measure.beside]
        if self._base is None and beside:
            self._base = dict[str, Figure]()
            with without_controls(module) as controlled:
                if controlled:
                    for measure in beside:
                        measure.reset()
                    generate(trainer, module, self.n, self.batch_size, beside)
                    for measure in beside:
                        with measure.sync_context():
                            self._base |= measure.uncontrolled() if trainer.is_global_zero else {}
        return self._base or {}

    def _warn(self, warnings: Iterable[str | None]) -> None:
        """Says each once."""
        for text in warnings:
            if text and text not in self._warned:
                self._warned.add(text)
                rank_zero_warn(text)

    def _about(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        """Returns the entries of a record that do not depend on a metric."""
        data, path = data_of(trainer), trainer.ckpt_path
        weights = path and {"path": str(path), "fingerprint": " ".join(digests(module))}
        return {
            "n": self.n,
            "data": {"name": type(data).__name__, "shape": list(data.shape)},
            # None if all are asked for in turn, or there are none.
            "labels": data.labels or (data.frequencies and "as often as in the training split"),
            "quantize": "floor(127.5 x + 128)",
            "sampler": by_stage(module, sampling),
            "checkpoint": weights,
            "hardware": {**hardware(module.device), "processes": trainer.world_size},
            "batch_size": self.batch_size,
        }
