"""Controls in files beside the pictures, which are cropped, resized and mirrored with them."""

import pytest
import torch
from PIL import Image

from diffusion.data import Beside, Drawn, ImageFolder, ImageText
from diffusion.data.controls.base import luma


@pytest.fixture
def folder(tmp_path, photo):
    """Pictures that are no squares, each with its grey version beside it."""
    for i in range(8):
        picture = photo(20, 13, seed=i)
        picture.save(tmp_path / f"{i}.png")
        picture.convert("L").save(tmp_path / f"{i}.depth.png")
        (tmp_path / f"{i}.txt").write_text(f"number {i}")
    return tmp_path


def made(root, kind=ImageFolder, **kwargs):
    controls = {"depth": Beside()}
    data = kind(
        **{"root": str(root), "size": 8, "val_share": 0.0, "controls": controls, "seed": 1} | kwargs
    )
    data.setup("fit")
    return data


def agrees(batch):
    return (batch["depth"] - luma(batch["image"])).abs().max() < 1.5 / 255


def test_both_are_cropped_resized_and_mirrored_together(folder):
    data = made(folder, flip=True)
    assert len(data.train_set) == 8
    plain = next(data.batches("train"))
    assert plain["depth"].shape == (8, 1, 8, 8)
    assert agrees(plain)
    drawn = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert agrees(drawn)
    alike = [(x - plain["image"]).abs().amax((1, 2, 3)).min() < 1e-6 for x in drawn["image"]]
    assert 0 < sum(alike) < len(alike)  # some are mirrored
    before = data.train_set.digest()
    Image.new("L", (20, 13)).save(folder / "3.depth.png")
    assert data.train_set.digest() != before


def test_samples_are_asked_for_by_the_file_beside_their_caption(folder):
    data = made(folder, ImageText, ask="train")
    request = data.on_after_batch_transfer(data.request(range(8)), 0)
    real = next(data.batches("train"))
    of = dict(zip(real["text"], real["depth"]))
    assert len(of) == 8
    assert all(torch.equal(x, of[text]) for text, x in zip(request["text"], request["depth"]))


def test_pictures_without_one_are_left_out_and_said(folder):
    for i in (2, 5):
        (folder / f"{i}.depth.png").unlink()
    with pytest.warns(UserWarning, match=r"left out: 2 of 8 .* no \.depth\.png .* 2\.png, 5\.png"):
        data = made(folder)
    assert len(data.train_set) == 6
    with pytest.raises(FileNotFoundError, match=r"expected .* cat\.lines\.png beside cat\.jpg"):
        made(folder, controls={"lines": Drawn()})


def test_another_size_is_named(folder):
    Image.new("L", (20, 12)).save(folder / "4.depth.png")
    with pytest.raises(
        ValueError, match=r"depth: .*4\.depth\.png is 20 x 12; expected 20 x 13, as 4"
    ):
        made(folder)


def test_a_broken_one_is_skipped_with_its_picture(folder):
    path = folder / "6.depth.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.warns(UserWarning, match=r"1 of 8 pictures .* unreadable: 6\.png"):
        assert len(made(folder, max_unreadable=0.2).train_set) == 7


def test_channels_are_one_or_three():
    with pytest.raises(ValueError, match=r"data\.controls\.channels: 2; expected 1 or 3"):
        Beside(2)
