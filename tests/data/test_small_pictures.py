from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import Upsampling
from diffusion.data.reading.order import squares


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for name, size, files in (
        ("large", 16, [f"{k}/{i}.png" for i in range(12) for k in "ab"]),
        ("small", 4, [f"{i:06d}_{i % 2}.png" for i in range(5)]),
    ):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path


def made(folder, low_root="small", **more):
    root = None if low_root is None else str(folder / low_root)
    arguments = {"root": str(folder / "large"), "size": 16, "val_share": 0.3, "batch_size": 4}
    data = Upsampling(4, root, **{**arguments, **more})
    data.setup("fit")
    return data


def test_a_picture_comes_with_the_means_of_its_squares(pictures):
    batch = next(made(pictures).batches("train"))
    means = batch["image"].unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    torch.testing.assert_close(batch["low_res"], means)


def test_a_sample_comes_with_the_small_picture_of_its_number(pictures):
    data = made(pictures)
    batch = data.on_after_batch_transfer({"index": torch.tensor([3, 0])}, 0)
    for i, found in zip((3, 0), batch["low_res"]):
        pixels = np.asarray(Image.open(pictures / f"small/{i:06d}_{i % 2}.png"))
        wanted = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1
        torch.testing.assert_close(found, wanted)


def test_a_folder_of_predictions_has_more_than_samples(pictures):
    before = made(pictures).low.digest()
    Image.new("RGB", (20, 20)).save(pictures / "small/grid.png")
    assert made(pictures).low.digest() == before
    assert sorted(made(pictures).low.names) == list(range(5))


def test_small_pictures_that_are_there_were_drawn_with_the_classes_in_turn(pictures, monkeypatch):
    monkeypatch.setattr(Upsampling, "class_counts", lambda *_: [30, 2])
    assert made(pictures).measured(range(4))["label"].tolist() == [0, 1, 0, 1]
    assert made(pictures, low_root=None).measured(range(4))["label"].tolist() == [
        0,
        0,
        0,
        0,
    ]


def test_what_is_missing_is_named(pictures):
    with pytest.raises(ValueError, match=r"low_root: .*; expected .* 000007_0.png, .* number 7"):
        made(pictures).low.ask([1, 7])
    with pytest.raises(ValueError, match=r"data\.low_root: null; expected a folder"):
        made(pictures, low_root=None).low.ask([0])
    with pytest.raises(ValueError, match="low_size: 5; expected a divisor of size 16"):
        Upsampling(5, root="x", size=16)


def test_a_missing_folder_of_small_pictures_is_known_before_training(pictures):
    with pytest.raises(
        FileNotFoundError, match=r"data\.low_root: .*nowhere; expected a folder with pictures"
    ):
        made(pictures, "nowhere")


def test_the_small_version_of_a_crop_is_the_crop_of_the_small_version():
    """At every place where one of 8 x 8 fits into 16 x 16 pixels of which 4 x 4 are one."""
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 16, 16)
    small = picture.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    places = [(i, j) for i in range(3) for j in range(3)]
    corners = np.array([((i + 0.5) / 3, (j + 0.5) / 3) for i, j in places])
    cut = squares(picture.expand(9, 3, 16, 16), corners, 8, 4)
    means = cut.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    for found, (i, j) in zip(means, places):
        torch.testing.assert_close(found, small[0, :, i : i + 2, j : j + 2])


def test_training_reads_crops_of_both(pictures):
    """Each is where a square of the whole and of the small picture is; all places come up."""
    whole = made(pictures, batch_size=8, flip=True)
    crops = made(pictures, batch_size=8, flip=True, crop=8)
    places = []
    for a, b in islice(zip(whole.train_dataloader(), crops.train_dataloader()), 20):
        a, b = (x.on_after_batch_transfer(y, 0) for x, y in ((whole, a), (crops, b)))
        assert b["image"].shape[2:] == (8, 8)
        for large, low, cut, small in zip(a["image"], a["low_res"], b["image"], b["low_res"]):
            squares_of = large.unfold(1, 8, 4).unfold(2, 8, 4)  # (C, 3, 3, 8, 8)
            found = (squares_of == cut[:, None, None]).all(dim=(0, 3, 4)).nonzero().tolist()
            assert len(found) == 1
            i, j = found[0]
            torch.testing.assert_close(small, low[:, i : i + 2, j : j + 2])
            places.append((i, j))
    assert {*places} == {(i, j) for i in range(3) for j in range(3)}
    assert next(crops.batches("val"))["image"].shape[2:] == (16, 16)


def test_a_crop_of_all_is_the_picture(pictures):
    whole, crops = made(pictures), made(pictures, crop=16)
    for a, b in islice(zip(whole.train_dataloader(), crops.train_dataloader()), 3):
        assert torch.equal(a["image"], b["image"])


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (20, "data.crop: 20; expected at most 16, the side of the pictures"),
        (6, "data.crop: 6; expected a multiple of 4, the side of the square"),
        (0, "data.crop: 0; expected at least 1"),
    ],
)
def test_crops_that_there_are_not(pictures, crop, message):
    with pytest.raises(ValueError, match=message):
        _ = made(pictures, crop=crop).specs
