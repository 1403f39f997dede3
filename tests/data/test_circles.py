"""Circles against what a library of image processing finds in them."""

import numpy as np
import pytest
import torch
from skimage.draw import disk

from diffusion.common.palette import CSS, lab
from diffusion.data import Circles, Outline
from diffusion.data.synthetic.circles import Circle
from diffusion.metrics import CirclePlace, SampleBatch


@pytest.fixture(scope="module")
def circles():
    data = Circles(pictures=400, held_out=60, controls={"outline": Outline()})
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def shown(circles):
    return next(circles.batches("test"))


def pixels(images):
    return ((images + 1) * 127.5).round().to(torch.uint8)


def test_pictures_are_what_the_truth_says(circles, shown):
    truth, images = circles.truth["test"], pixels(shown["image"]).permute(0, 2, 3, 1).numpy()
    names = list(CSS)
    for k in range(60):
        inside = np.zeros((32, 32), dtype=bool)
        inside[disk(truth.centre[k, ::-1] - 0.5, truth.radius[k] - 1)] = True
        around = np.zeros((32, 32), dtype=bool)
        around[disk(truth.centre[k, ::-1] - 0.5, truth.radius[k] + 1, shape=(32, 32))] = True
        of, on = truth.colours[k]
        assert (images[k][inside] == CSS[names[of]]).all()
        assert (images[k][~around] == CSS[names[on]]).all()
        said = shown["text"][k].replace(" an ", " a ").removeprefix("an ").removeprefix("a ")
        assert said == f"{names[of]} circle on a {names[on]} background"
        area = (images[k] - np.array(CSS[names[on]], float)) @ np.subtract(
            CSS[names[of]], CSS[names[on]], dtype=float
        )
        share = area / np.square(np.subtract(CSS[names[of]], CSS[names[on]], dtype=float)).sum()
        assert share.sum() == pytest.approx(np.pi * truth.radius[k] ** 2, rel=0.02)


def test_an_outline_has_the_circles_place_and_radius(circles, shown):
    truth, y, x = circles.truth["test"], *np.indices((32, 32)) + 0.5
    for k, outline in enumerate(shown["outline"][:, 0].numpy()):
        line = outline > 0
        far = np.hypot(y[line] - truth.centre[k, 1], x[line] - truth.centre[k, 0])
        assert np.abs(far - truth.radius[k]).max() < 1.1
        assert line.sum() > 2 * np.pi * (truth.radius[k] - 1)


def test_what_is_held_out_was_never_trained_on(circles):
    cells = {k: {*map(tuple, (v.centre // 4).tolist())} for k, v in circles.truth.items()}
    pairs = {k: {*map(tuple, v.colours.tolist())} for k, v in circles.truth.items()}
    for found in (cells, pairs):
        assert len(found["test"]) > 1 < len(found["val"])
        assert found["train"].isdisjoint(found["val"] | found["test"])
        assert found["val"].isdisjoint(found["test"])


def test_every_pair_of_colours_can_be_told_apart():
    values = np.array(list(CSS.values()), dtype=np.uint8)
    distances = np.linalg.norm(lab(values)[:, None] - lab(values), axis=2)
    assert distances[~np.eye(len(CSS), dtype=bool)].min() > 24
    channels = np.abs(values[:, None].astype(int) - values).max(2)
    assert channels[~np.eye(len(CSS), dtype=bool)].min() > 255 * 0.15


def test_the_same_circles_every_time(circles):
    again = Circles(pictures=400, held_out=60)
    again.setup("fit")
    assert again.fingerprint("train") == circles.fingerprint("train")


def place(images, shown):
    measure = CirclePlace()
    for part in (slice(0, 20), slice(20, 60)):
        controls = {"outline": shown["outline"][part]}
        measure.update(
            SampleBatch(images[part], None, None, shown["text"][part], controls=controls)
        )
    return {name: figure.value for name, figure in measure.figures().items()}


def test_the_error_of_a_moved_and_recoloured_circle_is_known(circles, shown):
    images = pixels(shown["image"])
    own = place(images, shown)
    assert own["circle_place@60"] < 0.2
    assert own["circle_colour@60"] < 1
    assert own["circle_place_exchanged@60"] > 5
    assert own["circle_colour_exchanged@60"] > 50
    truth = circles.truth["test"]
    inwards = Circle(0.7 * truth.centre + 0.3 * 16, truth.radius, truth.colours)
    moved = place(torch.from_numpy(inwards.drawn(32)), shown)
    wanted = 0.3 * np.linalg.norm(truth.centre - 16, axis=1).mean()
    assert moved["circle_place@60"] == pytest.approx(wanted, abs=0.05)
    faded = place(images.float().mul(0.8).to(torch.uint8), shown)
    asked = [CSS[text.split(" circle")[0].removeprefix("an ").removeprefix("a ")]
             for text in shown["text"]]  # fmt: skip
    wanted = np.sqrt(np.square(0.2 * np.array(asked)).mean(1)).mean()
    assert faded["circle_colour@60"] == pytest.approx(wanted, abs=1)


def test_nothing_drawn_counts_as_in_the_middle(circles, shown):
    flat = torch.full((60, 3, 32, 32), 7, dtype=torch.uint8)
    truth = circles.truth["test"]
    wanted = np.linalg.norm(truth.centre - 16, axis=1).mean()
    assert place(flat, shown)["circle_place@60"] == pytest.approx(wanted, abs=0.1)


def test_without_outlines_there_is_no_figure(shown):
    measure = CirclePlace()
    measure.update(SampleBatch(pixels(shown["image"]), None, None, shown["text"]))
    assert measure.figures() == {}
