import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import Upsampling


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
