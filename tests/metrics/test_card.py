import dataclasses
import json

import pytest
import torch

from diffusion.common.files import kept
from diffusion.data import Digits
from diffusion.metrics import Card, Figure, LabelAccuracy, SampleBatch
from diffusion.metrics.real_images import collect
from diffusion.metrics.report import card_page
from diffusion.metrics.report.card import find_nearest
from diffusion.metrics.report.card_page import render_card
from diffusion.metrics.report.html import bars, inline, picture, settings_table
from diffusion.metrics.report.record import plain, stored

FIGURES = {
    "fd_lenet@30": Figure(1.2345, 30, "FD", "A distance.", "low", baseline=0.3456, leading=True),
    "fd_lenet_floor@30": Figure(1.2345, 30, "FD", "A distance.", "low").floor(0.3456),
    "precision_adm_lenet@30": Figure(0.5678, 30, "Precision (as ADM, LeNet)", "", "high", True,
                                     baseline=0.8765),
    "label_accuracy@30": Figure(0.91, 30, "Label accuracy", "", "high", True, baseline=0.9876),
    "near_copies@30": Figure(0.02, 30, "Near copies", share=True),
    "nfe": Figure(100.0, None, "NFE", "", "low"),
}  # fmt: skip
RECORD = {
    **stored(FIGURES),
    "accuracy_by_label": [0.75, None, 1.0],
    "n": 30,
    "data": {"name": "<b>Digits & co</b>", "shape": [1, 8, 8]},
    "extractor": {"name": "lenet", "fingerprint": "0123456789abcdef", "accuracy": 0.9876},
    "judge": None,
    "sampler": {"step": "DDIM(eta=0.0)", "steps": 50, "spacing": "trailing", "guidance": []},
    "checkpoint": {"path": "runs/x/last.ckpt", "fingerprint": "fedcba9876543210"},
    "hardware": {"device": "cpu"},
    "date": "2026-01-02T03:04:05+00:00",
}


@pytest.fixture
def made(digits):
    images, _ = collect(digits, "train")
    return SampleBatch(images[:30], None, torch.arange(30) % 10)


def test_page_is_alone_and_has_all_figures(made, digits, alone):
    nearest = find_nearest(Card(samples=4, neighbours=3), made.images, digits, torch.device("cpu"))
    record = {**RECORD, "figures": {**RECORD["figures"], "unheard_of@30": 4.25}}
    page = alone(render_card("a <run>", record, made, nearest))
    text = " ".join(page.text)
    for name, value in record["figures"].items():
        assert f"{value:.4g}" in text, name
        assert "floor" in name or name in text
    for word in ("a <run>", "<b>Digits & co</b>", "DDIM(eta=0.0)", "50 steps", "fedcba9876543210"):
        assert word in text
    assert "as ADM, LeNet" in text
    assert "0.9876" in text  # what the classifier itself gets of real images
    assert page.tags.count("img") == 1 + 4 * (1 + 3)
    assert page.tags.count("i") == 4  # bars


def test_all_stages_are_named():
    stages = [RECORD["sampler"], {"step": "DDPM()", "steps": 20, "guidance": ["Static", "Guide"]}]
    text = card_page._subtitle({**RECORD, "sampler": {"stages": stages}})
    assert "by DDIM(eta=0.0) in 50 steps, guidance none, then by DDPM() in 20 steps, " in text
    assert "guidance Static, Guide" in text


def test_samples_are_a_row_a_label_however_often_it_was_asked(digits, monkeypatch):
    labels = torch.tensor([5, 2, 2, 7, 2])
    images = (labels * 30).to(torch.uint8).view(-1, 1, 1, 1).expand(5, 1, 2, 2)
    shown = []
    monkeypatch.setattr(card_page, "picture", lambda image, *_: shown.append(image) or "")
    card_page._samples(SampleBatch(images, None, labels))
    (grid,) = shown
    assert grid[0, 1::3, 1::3].tolist() == [[60, 60, 60], [150, 255, 255], [210, 255, 255]]


def test_nearest_of_training_images_are_themselves(made, digits):
    nearest = find_nearest(Card(samples=5, neighbours=2), made.images, digits, torch.device("cpu"))
    assert torch.equal(nearest.samples, made.images[:5])
    assert torch.equal(nearest.images[:, 0], made.images[:5])
    assert nearest.distances[:, 0].max() < 1e-3 < nearest.usual < nearest.distances[:, 1].max()


def test_pictures_are_the_images(parsed):
    import base64
    import io

    import numpy as np
    from PIL import Image

    for channels in (1, 3):
        image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
        (url,) = parsed(picture(image, "50 % of <it>", 3)).urls
        found = np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))
        assert np.array_equal(found, image.permute(1, 2, 0).squeeze(-1).numpy())
    assert 'width="21" height="15"' in picture(image, "x", 3)
    assert 'alt="50 % of &lt;it&gt;"' in picture(image, "50 % of <it>")
    assert inline(b"x", "100 %") == '<img  alt="100 %" src="data:image/png;base64,eA==">'


def test_images_of_two_channels_are_not_shown(digits, alone):
    images = torch.zeros(3, 2, 8, 8, dtype=torch.uint8)
    made = SampleBatch(images)

    class Two(Digits):
        def batches(self, split, batch_size=500):
            yield {"image": torch.zeros(4, 2, 8, 8)}

        def shown(self):
            yield torch.zeros(4, 2, 8, 8)

    nearest = find_nearest(Card(neighbours=9), made.images, Two(), torch.device("cpu"))
    assert "img" not in alone(render_card("x", RECORD, made, nearest)).tags


def test_bars_and_settings():
    text = bars([("half", 0.5, 0.25), ("more", 1.2, None), ("<", 0.0, None)])
    assert 'style="--share:50.0%;--mark:25.0%"' in text
    assert "--share:120.0%" in text  # cut by the bar's background
    assert "&lt;" in text
    text = settings_table([], {"x_y": {"a": [1, "<"], "b": None, "c": {"d": 0.5}, "e": []}})
    assert "<td>x y</td>" in text
    assert (
        "<td>a: <code>1</code>, <code>&lt;</code><br>c: d: <code>0.5</code><br>e: none</td>" in text
    )
    assert "<td>–</td>" in settings_table([], {"a": None})
    assert settings_table(["", "one"], {"figures": 1}).count("<tr>") == 1


def test_accuracy_by_label(tmp_path):
    class Labels:
        """The first pixel is the likeliest label."""

        name, accuracy, fingerprint, label = "first", 0.9, "f", "First"

        def prepare(self, *_):
            pass

        def describe(self):
            return {"name": self.name}

        def __call__(self, images):
            return images, torch.eye(3)[images[:, 0, 0, 0].long()]

    class Data:
        num_classes = 3

        def class_counts(self, split):
            return [10, 10, 10]

    measure, data = LabelAccuracy(Labels()), Data()
    for classes, expected in ((3, [0.5, pytest.approx(2 / 3), None]), (4, [])):
        data.num_classes = classes
        measure.prepare(data, tmp_path)
        for shown, asked in (([0, 0, 1], [0, 1, 1]), ([2, 1], [0, 1])):
            images = torch.tensor(shown, dtype=torch.uint8).view(-1, 1, 1, 1)
            measure.update(SampleBatch(images, labels=torch.tensor(asked)))
        found = measure.figures()
        assert measure.entries["accuracy_by_label"] == expected
        assert [figure.value for figure in found.values()] == ([0.6] if expected else [])
        assert json.dumps(measure.entries)
        measure.reset()


def test_plain_settings():
    from diffusion.guidance.classifier_free import ClassifierFree
    from diffusion.guidance.threshold import Static
    from diffusion.step import DDIM

    assert plain(DDIM(0.5)) == "DDIM(eta=0.5, variance=small)"
    assert plain(ClassifierFree(3.0)).startswith("ClassifierFree(scale=3.0")
    assert plain(Static()) == "Static"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"k": 600}, r"metrics.card.k: 600; expected at least 1, less than n = 500"),
        ({"k": 0}, r"metrics.card.k: 0; expected at least 1"),
        ({"k_coverage": 500}, r"metrics.card.k_coverage: 500; .* less than n = 500"),
        ({"samples": 0}, r"metrics.card.samples: 0; expected at least 1"),
        ({"neighbours": 0}, r"metrics.card.neighbours: 0; expected at least 1"),
    ],
)
def test_settings_are_checked_before_anything_is_drawn(settings, line):
    from diffusion.callbacks.metrics import Metrics

    with pytest.raises(ValueError, match=line):
        Metrics(n=500, card=Card(**settings))


def test_earlier_pages_are_kept(tmp_path):
    for text in ("one", "two"):
        with kept(tmp_path / "card.html") as part:
            part.write_text(text)
    assert (tmp_path / "card.html").read_text() == "two"
    (earlier,) = tmp_path.glob("card.2*.html")
    assert earlier.read_text() == "one"


def test_captions_are_under_their_images(made, digits, alone):
    nearest = find_nearest(Card(samples=1, neighbours=1), made.images, digits, torch.device("cpu"))
    texts = [f"a <{i}> & more" for i in range(30)]
    record = {**RECORD, **stored({"clip_score@30": Figure(0.25, 30, baseline=0.4321)})}
    page = alone(render_card("x", record, dataclasses.replace(made, texts=texts), nearest))
    assert [text for text in page.text if "& more" in text] == texts[:24]
    assert page.tags.count("img") == 24 + 1 + 1
    assert "0.4321" in " ".join(page.text)  # of real images, beside the figure
