import json

import pytest
import torch
from test_metrics_callback import Pixels, Replay, trainer

from diffusion.callbacks.metrics import Metrics
from diffusion.data import Digits, Images, Memory
from diffusion.metrics import Card, Judge, LeNet, reliability
from diffusion.metrics.reliability import at_chance, tail, too_few


@pytest.mark.parametrize("n", [1, 16, 500, 10_000])
@pytest.mark.parametrize("p", [0.0, 0.003, 0.125, 0.9, 1.0])
def test_the_tail_is_scipys(n, p):
    from scipy.stats import binom

    for hits in {0, 1, n // 10, n // 2, n}:
        assert tail(hits, n, p) == pytest.approx(binom.sf(hits - 1, n, p), rel=1e-8, abs=1e-200)


def test_a_guess_is_told_from_a_classifier():
    assert "right on 12.5% of 16 real images, a guess on 12.5%" in at_chance("x", 0.125, 16, 0.125)
    assert at_chance("x", 5 / 16, 16, 0.125)  # P(X ≥ 5) = 0.039
    assert at_chance("x", 7 / 16, 16, 0.125) is None  # P(X ≥ 7) = 0.002
    assert at_chance("x", None, 16, 0.125) is None
    assert at_chance("x", 0.91, 1000, 0.9)  # the commonest class is 90 %
    assert at_chance("x", 1.0, 30, 1.0)  # there is one class
    found = reliability.tested("x", 0.9, [95, 5])
    assert (found["held_out"], found["chance"]) == (100, 0.95)
    assert "warning" in found
    assert "warning" not in reliability.tested("x", 0.9, [5] * 10)


def test_few_images_are_said():
    assert "4 images for features of 84 dimensions: the covariance is singular" in too_few(
        "reference", 4, 84
    )
    assert "badly estimated" in too_few("reference", 167, 84)
    assert too_few("reference", 168, 84) is None
    x = torch.randn(168, 84, dtype=torch.float64)  # the docstring's limits
    values = torch.linalg.eigvalsh(x.T.cov())
    assert 0.04 < values[0] < 0.2
    assert 2.4 < values[-1] < 3.4


class Noise(Images):
    """Images that say nothing of their labels; few of them."""

    shape, num_classes = (1, 8, 8), 8

    def setup(self, stage):
        if self.is_set_up:
            return
        generator = torch.Generator().manual_seed(0)
        for split, n in {"train": 8, "val": 16, "test": 16}.items():
            images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
            setattr(self, f"{split}_set", Memory(images, torch.arange(n) % 8))


@pytest.fixture(scope="module")
def guessed(tmp_path_factory):
    """The record of a test by a LeNet and a judge that guess, of 4 reference images."""
    folder = tmp_path_factory.mktemp("guessed")
    card = Card(samples=1, neighbours=1)
    metrics = Metrics(
        n=16, extractor=LeNet(steps=2), judge=True, card=card, cache=str(folder / "cache")
    )
    with pytest.warns(UserWarning, match="the extractor lenet") as said:
        trainer(folder, metrics).test(Replay(), Noise(), verbose=False)
    return folder, json.loads((folder / "metrics.json").read_text()), [str(w.message) for w in said]


def test_guessing_judges_and_few_images_are_warned_of(guessed, alone):
    folder, record, said = guessed
    warnings = record["warnings"]
    for start in ("the extractor lenet is right", "the judge is right", "metrics.n: 16 images"):
        assert len([text for text in warnings if text.startswith(start)]) == 1
    assert any(text.startswith("reference: 4 images for features of 84") for text in warnings)
    assert any(
        text.startswith("reference: 4 images; expected more than k = 5") for text in warnings
    )
    assert all(said.count(text) == 1 for text in warnings)
    assert record["extractor"]["held_out"] == record["judge"]["held_out"] == 16
    assert record["extractor"]["chance"] == 0.125
    page = " ".join(alone((folder / "card.html").read_text()).text)
    assert all(text in page for text in warnings)
    assert "lenet itself: right on" in page


def test_what_judges_that_guess_have_measured_is_not_compared(guessed, capsys):
    from diffusion.cli.report import main
    from diffusion.metrics.report.compare import read_card, why_not

    folder, record, _ = guessed
    cards = [read_card(folder), read_card(folder)]
    for name in ("fd_lenet@16", "kid_lenet@16", "label_accuracy@16"):
        assert why_not(cards, name).startswith("the extractor lenet is right on")
    assert why_not(cards, "judge_accuracy@16").startswith("the judge is right on")
    assert why_not(cards, "seconds_per_image") is None
    main(folder)
    assert record["warnings"][0] in " ".join(capsys.readouterr().out.split())


def test_good_judges_are_not_warned_of(lenet, cache, tmp_path, capsys):
    metrics = Metrics(n=200, extractor=lenet, judge=True, cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(), Digits(), verbose=False)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["warnings"] == []
    assert record["extractor"]["chance"] == record["judge"]["chance"] == 51 / 500
    assert "lenet itself: right on 98" in " ".join(capsys.readouterr().out.split())


def test_features_without_a_classifier_are_not_called_guesses(cache, tmp_path):
    metrics = Metrics(n=200, extractor=Pixels(), cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(), Digits(), verbose=False)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["warnings"] == []
    assert record["extractor"]["accuracy"] is None


def test_the_judge_is_tested_on_all_classes_of_a_sorted_split():
    class Sorted(Digits):
        def setup(self, stage):
            super().setup(stage)
            for name in ("train_set", "test_set"):
                part = getattr(self, name)
                order = part.labels.sort(stable=True).indices
                setattr(self, name, Memory(part.images[order], part.labels[order]))

    judge = Judge(limit=150)
    judge.fit(Sorted())
    assert sum(judge.tested) == 150
    assert min(judge.tested) > 3
