import tempfile
from pathlib import Path

import lightning as L
import pytest
import torch
from test_metrics_callback import Pixels, trainer

from diffusion.data import Digits
from diffusion.metrics import (
    Figure,
    FrechetDistance,
    InceptionScore,
    Judge,
    JudgeAccuracy,
    KernelDistance,
    LabelAccuracy,
    Measure,
    NearCopies,
    SampleBatch,
)


class Levels(Pixels):
    """Ten pixels as logits."""

    score = "is"

    def __call__(self, images):
        x = images.flatten(1).float() / 255
        return x, 5 * x[:, 10:20]


class Mean(Measure):
    """A metric of somebody else's, in one file."""

    higher_is_better = True

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")

    def update(self, samples):
        self.count(samples)
        self.total = self.total + samples.images.double().mean((1, 2, 3)).sum()

    def evaluate(self):
        n = int(self.seen)
        return {f"mean@{n}": Figure(self.total.item() / n, n, "Mean", "Of pixels.", "high")}


def every(n):
    levels = Levels()
    found = [FrechetDistance(levels), KernelDistance(levels), InceptionScore(levels, n)]
    return [*found, LabelAccuracy(levels), JudgeAccuracy(), NearCopies(), Mean()]


class Theirs(L.LightningModule):
    """A module that knows nothing of this project but the metrics."""

    def __init__(self, folder):
        super().__init__()
        self.layer, self.folder = torch.nn.Linear(1, 1), folder
        self.metrics = torch.nn.ModuleList(every(500))

    def on_test_start(self):
        for metric in self.metrics:
            metric.prepare(self.trainer.datamodule, self.folder)

    def test_step(self, batch, i):
        images = ((batch["image"] + 1) * 127.5).round().byte()
        first = 64 * (i * self.trainer.world_size + self.trainer.global_rank)
        index = first + torch.arange(len(images))  # so that both have the same parts of all
        for metric in self.metrics:
            metric.update(SampleBatch(images, index, batch["label"]))

    def on_test_epoch_end(self):
        for metric in self.metrics:
            self.log_dict({name.split("@")[0]: x for name, x in metric.compute().items()})


class Small(Digits):
    """A judge of few digits, and a test split of an even number."""

    def setup(self, stage):
        super().setup(stage)
        assert len(self.test_set) == 500


def run(folder, cache, devices, monkeypatch):
    monkeypatch.setattr(Judge.__init__, "__defaults__", (300, 0))
    settings = {"devices": devices, "strategy": "ddp_spawn" if devices > 1 else "auto"}
    module = Theirs(cache)
    return trainer(folder, **settings).test(module, Small(batch_size=64), verbose=False)[0]


def test_metrics_work_in_somebody_elses_module(tmp_path, monkeypatch):
    found = run(tmp_path, tmp_path / "cache", 1, monkeypatch)
    assert found["fd_pixels"] == pytest.approx(found["fd_pixels_floor"], rel=1e-5)
    assert found["kid_pixels"] == pytest.approx(found["kid_pixels_floor"], abs=1e-4)
    assert found["judge_accuracy"] > 0.9
    assert found["near_copies"] == found["near_copies_floor"] == pytest.approx(0.05)
    assert 50 < found["mean"] < 110


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    one, two = (run(tmp_path / str(n), cache, n, monkeypatch) for n in (1, 2))
    assert set(one) == set(two)
    assert two == pytest.approx(one, rel=1e-5, abs=1e-6)


def test_a_metric_is_drawn_and_has_a_direction(digits):
    metric = Mean()
    for batch in torch.randint(0, 256, (3, 4, 1, 8, 8), dtype=torch.uint8):
        metric.update(SampleBatch(batch))
    _, axes = metric.plot()
    assert axes.get_ylim()
    assert set(metric.compute()) == {"mean@12"}
    assert [x.better for x in metric.figures().values()] == ["high"]
    assert not FrechetDistance(Levels()).higher_is_better
    with tempfile.TemporaryDirectory() as folder:
        metric = FrechetDistance(Levels())
        metric.prepare(digits, Path(folder))
        assert {name: reduction.__name__ for name, reduction in metric._reductions.items()} == (
            dict.fromkeys(("seen", "counts", "sums", "products"), "dim_zero_sum")
        )  # nothing is gathered
