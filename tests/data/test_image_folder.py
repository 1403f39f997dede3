import os

import numpy as np
import pytest
import torch

from diffusion.common.hashing import share_of
from diffusion.data import ImageFolder
from diffusion.data.reading.decoding import looks_complete, read_picture


@pytest.fixture
def fill(photo):
    def make(folder, n, suffix="png", size=(9, 7), start=0):
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(start, start + n):
            photo(*size, seed=i).save(folder / f"{i:04d}.{suffix}")

    return make


def test_subfolders_are_classes_sorted_by_name(tmp_path, fill):
    for name, n in (("zebra", 3), ("ant", 4), ("empty", 0), (".hidden", 2)):
        fill(tmp_path / name, n)
    fill(tmp_path / "ant" / "young", 2, start=10)
    data = ImageFolder(str(tmp_path), size=4, val_share=0.0)
    data.setup("fit")
    assert data.classes == ["ant", "zebra"]
    assert data.num_classes == 2
    assert data.train_set.labels.tolist() == [0] * 6 + [1] * 3
    assert data.train_set.names[:2] == ["ant/0000.png", "ant/0001.png"]
    batch = data.train_set.__getitems__([7, 2])
    assert batch["label"].tolist() == [1, 0]
    assert torch.equal(batch["image"][0], read_picture(tmp_path / "zebra/0001.png", 4, 3))


def test_pictures_without_subfolders_have_no_labels(tmp_path, fill):
    fill(tmp_path, 5)
    (tmp_path / "notes.txt").write_text("no picture")
    data = ImageFolder(str(tmp_path), size=4, channels=1, val_share=0.0, batch_size=2)
    data.setup("fit")
    assert data.num_classes is None
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"image"}
    assert batch["image"].shape == (2, *data.shape)
    fill(tmp_path / "class", 1)
    with pytest.raises(ValueError, match="holds 5 pictures beside the folder 'class'"):
        ImageFolder(str(tmp_path), size=4).setup("fit")


def test_adding_pictures_moves_no_other(tmp_path, fill):
    fill(tmp_path, 150)
    data = ImageFolder(str(tmp_path), size=4, val_share=0.2)
    data.setup("fit")
    train, val = set(data.train_set.names), set(data.val_set.names)
    assert not train & val
    assert len(train | val) == 150
    assert 15 <= len(val) <= 45
    fill(tmp_path, 50, start=150)
    more = ImageFolder(str(tmp_path), size=4, val_share=0.2)
    more.setup("fit")
    assert train < set(more.train_set.names)
    assert val < set(more.val_set.names)
    assert np.mean([share_of(f"class/{i}.png") for i in range(2000)]) == pytest.approx(
        0.5, abs=0.03
    )


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def spoil(path):
    """Break the middle of a PNG, which its ends do not show."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def test_cut_files_are_left_out_and_named(tmp_path, fill):
    fill(tmp_path, 30, suffix="jpg", size=(32, 32))
    cut(tmp_path / "0003.jpg")
    (tmp_path / "0007.jpg").write_bytes(b"")
    data = ImageFolder(str(tmp_path), size=8, val_share=0.0, max_unreadable=0.1)
    with pytest.warns(UserWarning, match=r"2 of 30 .* unreadable: 0003\.jpg, 0007\.jpg"):
        data.setup("fit")
    assert len(data.train_set) == 28
    assert sum(len(batch["image"]) for batch in data.batches("train")) == 28
    strict = ImageFolder(str(tmp_path), size=8, val_share=0.0, max_unreadable=0.05)
    with pytest.raises(ValueError, match=r"max_unreadable: 0\.05; expected .*: 2 of 30"):
        strict.setup("fit")


def test_a_jpeg_with_something_after_its_end_is_kept(tmp_path, fill):
    fill(tmp_path, 1, suffix="jpg")
    with (tmp_path / "0000.jpg").open("ab") as file:
        file.write(b"written by a camera")
    data = ImageFolder(str(tmp_path), size=8, val_share=0.0)
    data.setup("fit")
    assert len(data.train_set) == 1


def test_a_picture_broken_inside_is_replaced_by_the_next(tmp_path, fill):
    fill(tmp_path, 10, size=(32, 32))
    for name in ("0004.png", "0005.png", "0009.png"):
        spoil(tmp_path / name)
        assert looks_complete(tmp_path / name)
    data = ImageFolder(str(tmp_path), size=8, val_share=0.0, max_unreadable=0.3)
    data.setup("fit")
    with pytest.warns(UserWarning, match=r"skipped the unreadable picture 0004\.png"):
        batch = data.train_set.__getitems__([4, 6, 9])
    again = data.train_set.__getitems__([6, 6, 0])
    assert torch.equal(batch["image"], again["image"])
    strict = ImageFolder(str(tmp_path), size=8, val_share=0.0, max_unreadable=0.15)
    with (
        pytest.warns(UserWarning, match=r"0004\.png"),
        pytest.raises(ValueError, match=r"max_unreadable: .*unreadable pictures, 2 of 10"),
    ):
        list(strict.batches("train"))


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: .*/none; expected a folder"):
        ImageFolder(str(tmp_path / "none"), size=8).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"root: .*; expected pictures, \.jpg"):
        ImageFolder(str(tmp_path), size=8).setup("fit")


def test_an_empty_validation_set_is_refused(tmp_path, fill):
    fill(tmp_path, 1)
    with pytest.raises(ValueError, match=r"val_share: 1e-09; .* puts 1 .* 0 into the val"):
        ImageFolder(str(tmp_path), size=8, val_share=1e-9).setup("fit")


@pytest.mark.parametrize(
    ("key", "value"), [("size", 0), ("channels", 2), ("val_share", 1.0), ("max_unreadable", -0.1)]
)
def test_numbers_out_of_range_are_refused(key, value):
    with pytest.raises(ValueError, match=f"{key}: {value}; expected"):
        ImageFolder(**{"root": ".", "size": 8, key: value})


def test_fingerprint_follows_settings_and_files(tmp_path, fill):
    fill(tmp_path, 20)

    def fingerprint(**settings):
        folder = ImageFolder(str(tmp_path), **{"size": 4, "val_share": 0.3, **settings})
        return folder.fingerprint("train")

    first = fingerprint()
    assert fingerprint(batch_size=2, seed=3, flip=True, num_workers=1) == first
    settings = [{"size": 5}, {"channels": 1}, {"val_share": 0.6}]
    assert len({first, *(fingerprint(**setting) for setting in settings)}) == 4
    os.utime(tmp_path / "0000.png", (1, 1))
    os.utime(tmp_path / "0001.png", (1, 1))
    os.utime(tmp_path / "0002.png", (1, 1))
    assert fingerprint() != first


@pytest.mark.filterwarnings("ignore:skipped")
def test_an_error_in_a_worker_keeps_its_cause(tmp_path, fill):
    from diffusion.cli.errors import one_line

    fill(tmp_path / "a_folder", 4, size=(32, 32))
    for i in (1, 2):
        spoil(tmp_path / f"a_folder/000{i}.png")
    said = {}
    for workers in (0, 1):
        data = ImageFolder(str(tmp_path), 8, val_share=0.0, max_unreadable=0.3, num_workers=workers)
        with pytest.raises(ValueError, match=r"max_unreadable: .* 2 of 4") as error:
            list(data.batches("train"))
        said[workers] = one_line(str(error.value))
    assert "the last was a_folder/0002.png" in said[0]
    assert said[1] == said[0]
