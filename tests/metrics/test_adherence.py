"""Adherence to controls: against loops over pixels, scikit-learn, scikit-image, closed forms."""

from itertools import permutations
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error
from skimage.morphology import footprint_rectangle, isotropic_dilation
from sklearn.metrics import jaccard_score

from diffusion.callbacks.metrics import Metrics
from diffusion.common.pixels import quantize, scaled
from diffusion.data import Digits
from diffusion.data.controls.low_pass import LowPass
from diffusion.metrics import Adherence, SampleBatch
from diffusion.metrics.control_score import f1, iou, rmse
from diffusion.systems.generative import Generative


class Inside:
    """Where a picture is bright."""

    kind, channels = "regions", 1

    def __call__(self, image):
        return (image.mean(1, keepdim=True) > 0).float()


class Pictures:
    """Random pictures, the first five of which are asked for by their controls."""

    ask, num_classes, shape = "val", None, (3, 16, 16)

    def __init__(self, n=9):
        self.controls = {"inside": Inside(), "colours": LowPass(4)}
        values = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8)
        blocks = values[..., ::4, ::4].repeat_interleave(4, -1).repeat_interleave(4, -2)
        self.images = (blocks.float() / 127.5 - 1).clamp(-1, 1)

    def batches(self, split, batch_size=500):
        assert split == "val"
        yield from ({"image": x} for x in self.images.split(4))

    def given(self, rows):
        return {name: control(self.images[rows]) for name, control in self.controls.items()}


def binary(n, seed=0, side=7):
    random = np.random.default_rng(seed)
    maps = random.random((n, 1, side, side)) < random.uniform(0, 0.3, (n, 1, 1, 1))
    maps[0] = False
    return torch.from_numpy(maps).float()


def counted(a, b):
    """F1 within one pixel, pixel by pixel."""
    if not a.any() and not b.any():
        return 1.0

    def near(x, y, other):
        return other[max(0, x - 1) : x + 2, max(0, y - 1) : y + 2].any()

    shares = []
    for one, other in ((a, b), (b, a)):
        rows = np.argwhere(one)
        shares.append(np.mean([near(*row, other) for row in rows]) if len(rows) else 0.0)
    return 0.0 if not min(shares) else 2 * shares[0] * shares[1] / sum(shares)


def test_f1_of_edges_against_counting_and_dilation():
    seen, given = binary(6), binary(5, 1)
    table = f1(seen, given)
    for i, j in np.ndindex(6, 5):
        a, b = seen[i, 0].numpy() > 0, given[j, 0].numpy() > 0
        assert table[i, j].item() == pytest.approx(counted(a, b))
    square = footprint_rectangle((3, 3))
    assert square.all()
    a, b = seen[3, 0].numpy() > 0, given[3, 0].numpy() > 0
    wide = [isotropic_dilation(x, 1.5) for x in (a, b)]  # a disc of radius 1.5 is 3 x 3
    p, r = (a & wide[1]).sum() / a.sum(), (b & wide[0]).sum() / b.sum()
    assert table[3, 3].item() == pytest.approx(2 * p * r / (p + r))


def test_a_line_may_be_a_pixel_off_and_no_more():
    line = torch.zeros(1, 1, 9, 9)
    line[..., 3] = 1
    moved = torch.cat([line.roll(k, -1) for k in range(4)])
    assert f1(moved, line).flatten().tolist() == [1, 1, 0, 0]
    half = line.clone()
    half[..., 4:, :] = 0  # rows 0 … 3 of 9: all right, and 5 of 9 found, one more within a pixel
    assert f1(half, line).item() == pytest.approx(2 * (5 / 9) / (1 + 5 / 9))
    none = torch.zeros(1, 1, 9, 9)
    assert f1(torch.cat([none, line]), torch.cat([none, line])).tolist() == [[1, 0], [0, 1]]


def test_iou_and_rmse_against_scikit():
    a, b = binary(5), binary(4, 1)
    table = iou(a, b)
    for i, j in np.ndindex(5, 4):
        expected = jaccard_score(a[i].flatten(), b[j].flatten(), zero_division=1.0)
        assert table[i, j].item() == pytest.approx(expected)
    x, y = torch.rand(3, 3, 5, 5, dtype=torch.float64), torch.rand(4, 3, 5, 5, dtype=torch.float64)
    table = rmse(x, y)
    for i, j in np.ndindex(3, 4):
        expected = 255 * mean_squared_error(x[i].numpy(), y[j].numpy()) ** 0.5
        assert table[i, j].item() == pytest.approx(expected)
    assert rmse(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == 255


def measured(data, images, given, rows=([3, 1], [0, 2, 4])):
    """The figures of samples in two batches, as of two processes."""
    measure = Adherence()
    measure.prepare(data, Path())
    for part in rows:
        controls = {name: x[part] for name, x in given.items()}
        measure.update(SampleBatch(images[part], torch.tensor(part), controls=controls))
    return {name: x.value for name, x in measure.figures().items()}, measure.figures()


def test_real_pictures_have_the_ceiling_and_exchanged_ones_the_floor():
    data = Pictures()
    images = quantize(data.images[:5])
    values, figures = measured(data, images, data.given(range(5)))
    assert values["adherence_inside@5"] == values["adherence_inside_ceiling@5"] == 1
    assert values["adherence_colours@5"] == values["adherence_colours_ceiling@5"] == 0
    assert values["adherence_inside_share@5"] == values["adherence_colours_share@5"] == 1
    assert figures["adherence_inside@5"].baseline == 1
    assert figures["adherence_inside@5"].better == "high"
    assert figures["adherence_colours@5"].better == "low"
    # All exchanges of five samples, each once: their mean share is 0.
    shares = []
    for order in permutations(range(5)):
        if all(i != j for i, j in enumerate(order)):
            controls = {k: x[list(order)] for k, x in data.given(range(5)).items()}
            shares.append(iou(data.controls["inside"](data.images[:5]), controls["inside"]))
    mean = torch.stack([table.diagonal().mean() for table in shares]).mean().item()
    assert values["adherence_inside_shuffled@5"] == pytest.approx(mean)


def test_the_share_is_between_others_controls_and_real_pictures():
    """Three of five samples are right, two are each other's."""
    data = Pictures()
    given, drawn = data.given(range(5)), data.images[[0, 1, 2, 4, 3]]
    values, figures = measured(data, quantize(drawn), given)
    for name, table_of, ceiling in (("inside", iou, 1.0), ("colours", rmse, 0.0)):
        table = table_of(data.controls[name](drawn), given[name])
        own = table.diagonal().mean().item()
        others = (table.sum().item() - 5 * own) / 20
        assert values[f"adherence_{name}@5"] == pytest.approx(own)
        assert values[f"adherence_{name}_shuffled@5"] == pytest.approx(others)
        share = (own - others) / (ceiling - others)
        assert values[f"adherence_{name}_share@5"] == pytest.approx(share)
        assert 0 < share < 1
    assert figures["adherence_inside_share@5"].leading


def test_controls_of_no_picture_have_no_ceiling():
    data = Pictures()
    given = data.given(range(5))
    given["inside"] = given["inside"].clone()
    given["inside"][2] = torch.eye(16)
    values, _ = measured(data, quantize(data.images[:5]), given)
    assert "adherence_inside@5" in values
    assert "adherence_inside_shuffled@5" in values
    assert "adherence_inside_share@5" not in values
    assert values["adherence_colours_share@5"] == 1


def test_pictures_of_a_control_are_those_that_it_was_given_with():
    """Where the control is a file beside the picture, the ceiling is below 1."""
    data = Pictures()
    given = data.given(range(9))["inside"].roll(1, -1)

    class Beside(Pictures):
        def batches(self, split, batch_size=500):
            for x, y in zip(data.images.split(4), given.split(4)):
                yield {"image": x, "inside": y}

    values, _ = measured(Beside(), quantize(data.images[:5]), {"inside": given[:5]})
    expected = iou(Inside()(data.images[:5]), given[:5]).diagonal().mean().item()
    assert 0 < expected < 1
    assert values["adherence_inside_ceiling@5"] == pytest.approx(expected)
    assert values["adherence_inside_share@5"] == 1


def test_nothing_without_controls():
    measure = Adherence()
    measure.prepare(Pictures(), Path())
    measure.update(SampleBatch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)))
    assert measure.figures() == {}


class Controlled(Digits):
    """Digits, each asked for by the colours of validation picture i."""

    def __init__(self):
        super().__init__(controls={"colours": LowPass(4)})

    def request(self, numbers):
        pictures = next(self.batches("val"))["image"][list(numbers)]
        return {**super().request(numbers), "colours": self.controls["colours"](pictures)}


class Copies(Generative, L.LightningModule):
    """Draws the picture that number i is asked by; from number 8 on, another."""

    shape, moments, reads_labels, reads_anything = (1, 8, 8), 1, False, False  # pyright: ignore

    def networks(self):
        return {}

    def settings(self):
        return {}

    def trajectory(self, batch, seeds):
        pictures = next(self.trainer.datamodule.batches("val"))["image"]
        yield pictures[[i if i < 8 else i + 1 for i in seeds]]

    def validation_step(self, batch, i):
        pass


def validated(folder, **settings):
    metrics = Metrics(11, None, 4, validate=True, measures=[Adherence()], cache=str(folder))
    run = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[metrics], **settings,
    )  # fmt: skip
    run.validate(Copies(), Controlled(), verbose=False)
    return {k.removeprefix("val/"): v.item() for k, v in run.callback_metrics.items()}


@pytest.fixture
def expected():
    """The figures of all samples at once."""
    data, rows = Controlled(), list(range(11))
    given = data.request(rows)["colours"]
    seen = LowPass(4)(scaled(quantize(next(data.batches("val"))["image"])))  # of 17 grey levels
    table = rmse(seen[[*range(8), 9, 10, 11]], given)
    own, best = (x.diagonal().mean().item() for x in (table, rmse(seen[:11], given)))
    others = (table.sum().item() - 11 * own) / 110
    share = (own - others) / (best - others)
    found = {"": own, "_shuffled": others, "_ceiling": best, "_share": share}
    return {f"adherence_colours{end}@11": pytest.approx(x) for end, x in found.items()}


def test_validations_log_it_and_train_no_extractor(tmp_path, expected):
    found = validated(tmp_path)
    assert found.pop("seconds_per_image") > 0
    assert found == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_several_processes_log_the_same(tmp_path, expected):
    found = validated(tmp_path, devices=3, strategy="ddp_spawn")
    assert found.pop("seconds_per_image") > 0
    assert found == expected
