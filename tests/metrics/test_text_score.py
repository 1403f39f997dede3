import json
from pathlib import Path

import pytest
import torch
from test_metrics_callback import Replay, trainer

from diffusion.callbacks.metrics import Metrics
from diffusion.data import Digits
from diffusion.metrics import MadeBy, SampleBatch, TextMeasure
from diffusion.metrics.captions.caption_retrieval import exchanged, matching, mean_at, retrieval
from diffusion.metrics.report.record import stored


class Hues:
    """Eight flat pictures; their captions are their levels, and two share one."""

    shape, num_classes, ask = (1, 2, 2), None, "val"
    levels = torch.tensor([0, 36, 72, 108, 144, 180, 216, 216], dtype=torch.uint8)

    def __init__(self):
        self.texts = sorted(set(self.captions()))

    def captions(self):
        return [f"level {v}" for v in self.levels.tolist()]

    def batches(self, split, batch_size=500):
        assert split == self.ask
        images = (self.levels.float() / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, *self.shape)
        for i in range(0, 8, 3):
            yield {"image": images[i : i + 3], "text": self.captions()[i : i + 3]}


class Angles:
    """A level is an angle, of pictures and of words: cos of the difference."""

    fingerprint, shape, clean, parts = "angles", (1, 2, 2), True, ("the text encoder Degrees",)

    @staticmethod
    def unit(levels):
        angle = levels * torch.pi / 255
        return torch.stack([angle.cos(), angle.sin()], 1)

    def embed_image(self, images):
        return self.unit((images.mean((1, 2, 3)) + 1) * 127.5)

    def embed_text(self, texts):
        return self.unit(torch.tensor([float(text.split()[1]) for text in texts]))


def made(levels, captions):
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return SampleBatch(images, texts=[f"level {v}" for v in captions])


def measured(samples, scorer=None, data=None):
    """Numbers by name, and the entry of a record, of samples in batches out of order."""
    measure = TextMeasure(scorer or Angles())
    measure.prepare(data or Hues(), Path())
    for rows in torch.arange(len(samples.images)).flip(0).split(3):
        texts = samples.texts and [samples.texts[i] for i in rows.tolist()]
        measure.update(SampleBatch(samples.images[rows], rows, texts=texts))
    found = measure.figures()
    return {name: figure.value for name, figure in found.items()}, measure.entries["text"]


def test_perfect_images_are_at_the_ceiling():
    levels = [0, 36, 72, 108, 144, 180, 216]
    figures, asked = measured(made(levels, levels))
    for name in ("clip_score", "clip_r1", "clip_r5"):
        assert figures[f"{name}@7"] == pytest.approx(1)
        assert figures[f"{name}_ceiling@7"] == pytest.approx(1)
    assert figures["clip_score_floor@7"] < 0.8
    assert asked["scorer"] == "angles"
    assert asked["split"] == "val"
    assert asked["distinct"] == 7
    assert asked["first"][:2] == ["level 0", "level 36"]


def test_figures_by_hand():
    """Off by 10 and 100 levels: cosines of those angles; the second is nearer to four others."""
    figures, _ = measured(made([10, 136, 72, 108, 144, 180, 216], [0, 36, 72, 108, 144, 180, 216]))
    angles = torch.tensor([10, 100, 0, 0, 0, 0, 0]) * torch.pi / 255
    assert figures["clip_score@7"] == pytest.approx(angles.cos().mean().item())
    assert figures["clip_r1@7"] == pytest.approx(6 / 7)
    # 136 is 8, 28, 44, 64 and 80 from 144, 108, 180, 72 and 216: 36 is the sixth
    assert figures["clip_r5@7"] == pytest.approx(6 / 7)
    assert figures["clip_score_ceiling@7"] == pytest.approx(1)


def test_other_captions_have_another_fingerprint():
    one, two, again = (
        measured(made([0, 0], captions))[1] for captions in ([0, 36], [36, 0], [0, 36])
    )
    assert one == again
    assert one["fingerprint"] != two["fingerprint"]


def test_prompts_without_pictures_have_no_ceiling():
    figures, asked = measured(made([0, 5, 9], [0, 5, 5]))
    assert set(figures) == {"clip_score@3", "clip_r1@3", "clip_score_floor@3"}
    assert asked["split"] is None
    assert asked["distinct"] == 2


def test_one_prompt_is_not_retrieved():
    figures, _ = measured(made([0, 5], [5, 5]))
    assert set(figures) == {"clip_score@2"}


def test_nothing_without_captions():
    assert measured(SampleBatch(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))) == ({}, None)


def test_captions_get_their_pictures_in_turn():
    data = Hues()
    data.levels = data.levels.clone()
    data.captions = lambda: ["a", "b", "a", "c", "c", "c", "d", "a"]
    found = matching(["a", "a", "c", "a", "a", "b"], data, "val")
    assert found[:, 0, 0, 0].tolist() == [0, 72, 108, 216, 0, 36]
    assert matching(["a", "e"], data, "val") is None


@pytest.mark.parametrize("m", [2, 3, 10, 101])
def test_exchanged_captions_are_all_others(m):
    order = exchanged(m)
    assert sorted(order.tolist()) == list(range(m))
    assert not (order == torch.arange(m)).any()
    assert torch.equal(order, exchanged(m))


def test_retrieval_is_what_sorting_gives():
    cosines, own = torch.randn(200, 30), torch.randint(30, (200,))
    for k in (1, 5, 29):
        top = cosines.topk(k, 1).indices
        share = (top == own[:, None]).any(1).double().mean().item()
        assert retrieval(cosines, own, k) == pytest.approx(share)
    assert mean_at(cosines, own) == pytest.approx(
        sum(cosines[i, own[i]].item() for i in range(200)) / 200, abs=1e-6
    )


def test_a_scorer_that_cannot_tell_is_a_guess():
    own = torch.arange(20)
    assert retrieval(torch.zeros(20, 20), own, 5) == pytest.approx(5 / 20)
    cosines = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.0]])
    # own ties with two others for the places 2 to 4
    assert retrieval(cosines, torch.tensor([2]), 1) == 0
    assert retrieval(cosines, torch.tensor([2]), 3) == pytest.approx(2 / 3)
    assert retrieval(cosines, torch.tensor([2]), 4) == 1


def test_data_and_scorer_are_checked():
    measure = TextMeasure(Angles())
    assert measure.check(Hues(), MadeBy()) is None
    assert measure.check(Hues(), MadeBy((), ["others"], ["the text encoder Words"])) is None
    with pytest.raises(ValueError, match=r"metrics.text.scorer: it guides the sampler; expected"):
        measure.check(Hues(), MadeBy(guides=["angles"]))
    with pytest.raises(ValueError, match=r"metrics.text: Digits has no captions"):
        measure.check(Digits(), MadeBy())
    for key, value, line in [
        ("shape", (3, 8, 8), r"reads images \(3, 8, 8\); expected \(1, 2, 2\)"),
        ("clean", False, "reads noisy images only"),
    ]:
        scorer = Angles()
        setattr(scorer, key, value)
        with pytest.raises(ValueError, match=rf"metrics.text.scorer: {line}"):
            TextMeasure(scorer).check(Hues(), MadeBy())


def test_figures_have_meanings():
    measure, samples = TextMeasure(Angles()), made([0, 40, 70, 100, 140, 180], [*range(0, 216, 36)])
    measure.prepare(Hues(), Path())
    measure.update(samples)
    found = measure.figures()
    assert {x.depends for x in found.values()} == {("text",)}
    assert found["clip_score@6"].baseline == found["clip_score_ceiling@6"].value
    assert "exchanged" in found["clip_score_floor@6"].phrase
    assert "of the captions" in found["clip_r5_ceiling@6"].phrase
    assert found["clip_r1_ceiling@6"].title == found["clip_r1@6"].title


def test_a_scorer_that_shares_a_part_is_invalid():
    measure, levels = TextMeasure(Angles()), [0, 36, 72, 108, 144, 180]
    said = measure.check(Hues(), MadeBy(parts=["the text encoder Degrees", "the image tower 1"]))
    assert "it shares the text encoder Degrees with what draws" in said
    measure.prepare(Hues(), Path())
    measure.update(made(levels, levels))
    for name, figure in measure.figures().items():
        assert figure.invalid == (None if "ceiling" in name or "floor" in name else said)
    assert measure.warnings == [said]
    assert stored(measure.figures())["meanings"]["clip_r1@6"]["invalid"] == said


class Named(Digits):
    """Digits whose captions are names of their classes."""

    ask = "train"
    texts = sorted(f"digit {i}" for i in range(10))

    def batches(self, split, batch_size=500):
        for batch in super().batches(split, batch_size):
            yield {**batch, "text": [f"digit {y}" for y in batch["label"].tolist()]}

    def fingerprint(self, split):
        return Digits().fingerprint(split)  # so that LeNet is not trained again

    def request(self, numbers):
        batch = super().request(numbers)
        return {**batch, "text": [f"digit {y}" for y in batch["label"].tolist()]}


class Read(Replay):
    """Knows the captions only."""

    def drawn(self, asked, seeds):
        digits = torch.tensor([int(text.split()[1]) for text in asked["text"]])
        return super().drawn({"label": digits}, seeds)


class Logits:
    """A classifier as a CLIP of ten captions."""

    fingerprint, shape, clean, parts = "logits", (1, 8, 8), True, ()

    def __init__(self, extractor):
        self.extractor = extractor

    def embed_image(self, images):
        logits = self.extractor(((images + 1) * 127.5).round().to(torch.uint8))[1]
        return torch.nn.functional.normalize(logits.softmax(1))

    def embed_text(self, texts):
        return torch.eye(10)[[int(text.split()[1]) for text in texts]]


def test_the_callback_measures_and_records(lenet, cache, tmp_path):
    text = TextMeasure(Logits(lenet))
    metrics = Metrics(n=40, batch_size=15, extractor=lenet, text=text, cache=str(cache))
    trainer(tmp_path, metrics).test(Read(), Named(), verbose=False)
    figures = metrics.figures
    assert figures["clip_r1@40"] > 0.95
    assert figures["clip_score@40"] > 0.9
    assert figures["clip_score_floor@40"] < 0.1
    assert figures["clip_score_ceiling@40"] > 0.9
    assert figures["label_accuracy@40"] > 0.95  # a label was asked for with each caption
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["text"]["scorer"] == "logits"
    assert record["text"]["split"] == "train"
    assert record["text"]["first"] == [f"digit {i}" for i in range(10)]
    assert record["reference"]["rule"] == "odd train images"


def test_labels_are_not_judged_where_captions_go_unread(lenet, cache, tmp_path):
    text = TextMeasure(Logits(lenet))
    metrics = Metrics(n=20, extractor=lenet, text=text, cache=str(cache))
    trainer(tmp_path, metrics).test(Replay(conditional=False), Named(), verbose=False)
    assert not [name for name in metrics.figures if "accuracy" in name]
    assert metrics.figures["clip_score@20"] < metrics.figures["clip_score_ceiling@20"] - 0.3


class Blind(Logits):
    """Sees no difference."""

    fingerprint = "blind"

    def embed_image(self, images):
        return torch.nn.functional.normalize(torch.ones(len(images), 10))


@pytest.mark.parametrize("asked", ["captions", "prompts"])
def test_a_scorer_that_finds_no_caption_is_warned_of(lenet, asked, monkeypatch):
    prompts = [f"digit {i % 10}" for i in range(40)]
    data, black = Named(), torch.zeros(40, 1, 8, 8).byte()
    if asked == "prompts":  # which no picture has
        monkeypatch.setattr("diffusion.metrics.captions.base.matching", lambda *_: None)
    about = measured(SampleBatch(black, texts=prompts), Blind(lenet), data)[1]
    assert (
        "metrics.text.scorer is right on 10.0% of 10 real images, a guess on 10.0%"
        in (about["warning"])
    )
    assert "warning" not in measured(SampleBatch(black, texts=prompts), Logits(lenet), data)[1]


def test_captions_are_wanted_before_anything_is_drawn(lenet, cache, tmp_path):
    module = Replay()
    metrics = Metrics(n=20, extractor=lenet, text=TextMeasure(Logits(lenet)), cache=str(cache))
    with pytest.raises(ValueError, match=r"metrics.text: Digits has no captions"):
        trainer(tmp_path, metrics).test(module, Digits(), verbose=False)
    assert module.seeds == []
