"""Ceilings that samples may not exceed, colours and classes asked for: against counting by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.common.palette import NAMES
from diffusion.metrics import AskedClass, AskedColours, Figure, SampleBatch
from diffusion.metrics.captions.asked_colours import asked_colours, own_colours
from diffusion.metrics.captions.base import above, beside_real, over_others
from diffusion.metrics.report.compare import Measured, best, why_not
from diffusion.metrics.report.record import stored

COLOURS = ["red", "green", "blue", "yellow", "black"]


def square(*colours, side=16, ground=(255, 255, 255)):
    """Bands of colours in the middle of a ground, uint8 (3, side, side)."""
    picture = torch.tensor(ground, dtype=torch.uint8).view(3, 1, 1).repeat(1, side, side)
    for i, colour in enumerate(colours):
        value = torch.tensor(NAMES[colour][0], dtype=torch.uint8).view(3, 1, 1)
        picture[:, 4:12, 4 + 8 * i // len(colours) : 4 + 8 * (i + 1) // len(colours)] = value
    return picture


class Squares:
    """A square of each colour with its caption and class; one caption names no colour."""

    shape, num_classes, ask = (3, 16, 16), 5, "val"

    def batches(self, split, batch_size=500):
        images = torch.stack([square(c) for c in (*COLOURS, "red")]).float() / 127.5 - 1
        texts = [*[f"a {c} square" for c in COLOURS], "a square"]
        yield {"image": images, "text": texts, "label": torch.tensor([0, 1, 2, 3, 4, 0])}

    def class_counts(self, split):
        return [2, 1, 1, 1, 1]


class Mean:
    """Finds the class of a flat colour by the nearest one."""

    accuracy = None

    def prepare(self, data, cache, progress=True):
        self.middles = torch.tensor([NAMES[c][0] for c in COLOURS]).float()

    def describe(self):
        return {"name": "mean"}

    def __call__(self, images):
        middle = images[:, :, 6:10, 6:10].float().mean((2, 3))
        return middle, -torch.cdist(middle, self.middles)


def measured(measure, images, texts):
    measure.prepare(Squares(), Path())
    for rows in ([2, 3, 4], [0, 1], range(5, len(texts))):
        rows = [row for row in rows if row < len(texts)]
        if rows:
            batch = torch.stack([images[row] for row in rows])
            asked = [texts[row] for row in rows]
            measure.update(SampleBatch(batch, torch.tensor(rows), texts=asked))
    return measure.figures()


TEXTS = [f"a {c} square" for c in COLOURS]


def test_colours_that_a_text_names():
    def names(text):
        return {n for n, asked in zip(NAMES, asked_colours(text)) if asked}

    assert names("a Google emoji of a light blue heart") == {"light blue"}
    assert names("blue and light blue; GREY, reddish, an orange") == {
        "blue",
        "light blue",
        "gray",
        "orange",
    }
    assert names("a bored man") == set()


def test_an_image_has_the_colours_that_fill_a_tenth_of_what_is_no_ground():
    def names(picture):
        return {n for n, own in zip(NAMES, own_colours(picture.permute(1, 2, 0).numpy())) if own}

    assert names(square("red", "green")) == {"red", "green"}
    assert names(square("red", ground=(45, 90, 190))) == {"red"}
    assert names(square()) == {"white"}
    few = square("black")
    few[:, 4, 4:10] = torch.tensor(NAMES["red"][0], dtype=torch.uint8)[:, None]  # 6 of 64 pixels
    assert names(few) == {"black"}
    few[:, 4, 4:11] = few[:, 4, 4:5]  # 7 of 64
    assert names(few) == {"black", "red"}
    almost = square("red", ground=(250, 252, 255))
    almost[:, 0, 0] = torch.tensor([255, 255, 255])
    assert names(almost) == {"red"}


def test_colours_by_hand():
    """Three of five right; caption j's colour is in image i as the table says."""
    drawn = ["red", "green", "blue", "red", "red"]
    images = [square(c) for c in drawn] + [square("pink")]
    figures = measured(AskedColours(), images, [*TEXTS, "a square"])
    table = np.array([[own == asked for asked in COLOURS] for own in drawn])
    off = table.sum() - np.trace(table)
    assert figures["asked_colours@5"].value == pytest.approx(3 / 5)
    assert figures["asked_colours_ceiling@5"].value == 1
    assert figures["asked_colours_floor@5"].value == pytest.approx(off / 20)
    assert figures["asked_colours@5"].baseline == 1
    assert not figures["asked_colours@5"].invalid
    both = [square("red", "green"), *images[1:5]]
    texts = ["a red and blue square", *TEXTS[1:]]
    found = measured(AskedColours(), both, texts)
    assert found["asked_colours@5"].value == pytest.approx((1 / 2 + 1 + 1 + 0 + 0) / 5)
    assert "asked_colours_ceiling@5" not in found  # no picture has the first caption


def test_classes_by_hand():
    drawn = ["red", "green", "blue", "red", "red"]
    figures = measured(AskedClass(Mean()), [square(c) for c in drawn], TEXTS)
    assert figures["asked_class@5"].value == pytest.approx(3 / 5)
    assert figures["asked_class_ceiling@5"].value == 1
    assert figures["asked_class_floor@5"].value == pytest.approx(2 / 20)  # images 3, 4; caption 0
    assert measured(AskedClass(Mean()), [square("red")] * 2, ["a thing", "a red square"]) == {}


@pytest.mark.parametrize("measure", [AskedColours(), AskedClass(Mean())])
def test_nothing_without_captions(measure):
    measure.prepare(Squares(), Path())
    measure.update(SampleBatch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)))
    assert measure.figures() == {}


def test_exchanging_is_the_mean_over_all_permutations_without_a_fixed_point():
    hits = torch.rand(4, 4, dtype=torch.float64)
    from itertools import permutations

    moved = [p for p in permutations(range(4)) if all(i != j for i, j in enumerate(p))]
    means = [sum(hits[i, j] for i, j in enumerate(p)) / 4 for p in moved]
    assert over_others(hits) == pytest.approx((sum(means) / len(means)).item())


def test_two_standard_errors_are_what_binomials_have():
    """Of equal shares p and q, about 2.3 % are above by chance (one side of a normal)."""
    random = np.random.default_rng(0)
    p, q = random.binomial(300, 0.3, (2, 20_000)) / 300
    false = np.mean([above("x", a, b, 300) is not None for a, b in zip(p, q)])
    assert 0.018 < false < 0.028
    assert above("x", 0.49, 0.31, 354).startswith("x: 49.0% of samples, 31.0% of real images")
    assert above("x", 0.35, 0.31, 354) is None
    assert above("x", 1.0, 1.0, 10) is None
    assert above("x", 0.2, 0.9, 10) is None


def test_a_figure_above_its_ceiling_is_invalid_and_not_compared():
    def figures(share):
        title = {"title": "r", "better": "high", "share": True}
        return {"r@100": Figure(share, 100, **title), "s@100": Figure(0.5, 100, title="s")}

    good, none = beside_real(figures(0.6), figures(0.55))
    bad, doubt = beside_real(figures(0.8), figures(0.55))
    assert none is None
    assert doubt.startswith("r@100: 80.0%")
    assert [x.invalid for x in bad.values()] == [doubt, None, doubt, None]
    assert bad["r_ceiling@100"].value == 0.55
    assert not [x for x in good.values() if x.invalid]
    cards = [Measured(n, stored(x), None) for n, x in (("good", good), ("bad", bad), ("too", good))]
    assert why_not(cards, "r@100") == f"invalid in bad: {doubt}"
    assert best(cards, "r@100") == set()
    assert best([cards[0], cards[2]], "r@100") == {"good", "too"}
    assert beside_real(figures(0.1), {}, "shared")[1] == "shared"
