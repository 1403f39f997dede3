"""What of a folder is read: links, formats, pipes, names."""

import os
import unicodedata

import pytest

from diffusion.data import ImageFolder
from diffusion.data.reading.listing import list_pictures


@pytest.fixture
def classes(tmp_path, photo):
    root = tmp_path / "root"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            photo(9, 9, seed=i).save(root / name / f"{i}.png")
    return root


def read(root, **settings):
    data = ImageFolder(str(root), 4, **{"val_share": 0.0, **settings})
    data.setup("fit")
    return data


EXPECTED = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("all", "."),
        ("all", ".."),
        ("cat/up", ".."),
        ("cat/self", "."),
        ("aaa", "cat"),
        ("cat/aaa", "../dog"),
        ("round", "round"),
    ],
)
def test_links_to_folders_that_are_read_multiply_nothing(classes, link, target):
    (classes.parent / "other").mkdir()
    (classes.parent / "other" / "a.png").write_bytes((classes / "cat/0.png").read_bytes())
    (classes / link).symlink_to(target)
    assert list_pictures(classes).names == EXPECTED


def test_left_out_links_are_mentioned(classes):
    (classes / "all").symlink_to(".")
    with pytest.warns(UserWarning, match=r"all of all \(0 of 0 .*links to what is read alr.*: all"):
        assert read(classes).classes == ["cat", "dog"]


def test_a_linked_class_folder_elsewhere_is_read_once(classes, tmp_path):
    (classes / "dog").rename(tmp_path / "far")
    (tmp_path / "far" / "up").symlink_to(tmp_path)
    (classes / "dog").symlink_to(tmp_path / "far")
    (classes / "dogs").symlink_to(tmp_path / "far")
    assert list_pictures(classes).names == EXPECTED
    assert list_pictures(classes).repeated == ["dog/up", "dogs"]


def test_links_to_files_count(classes):
    (classes / "cat" / "x.png").symlink_to("0.png")
    assert "cat/x.png" in list_pictures(classes).names


@pytest.mark.filterwarnings("ignore:skipped")
def test_what_cannot_be_read_is_mentioned_with_its_counts(classes):
    (classes / "empty").mkdir()
    (classes / "raw").mkdir()
    for i in range(3):
        (classes / "raw" / f"{i}.TIFF").write_bytes(b"II*")
        (classes / "dog" / f"{i}.png").write_bytes(b"")
    (classes / "cat" / "a.heic").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out of") as said:
        data = read(classes, max_unreadable=0.5)
    (line,) = (str(w.message) for w in said if "left out of" in str(w.message))
    assert "3 .tiff, 1 .heic, convert them to one of .jpg" in line
    assert "all of dog (0 of 3 pictures), empty (0 of 0 pictures), raw (0 of 3 pictures)" in line
    assert data.classes == ["cat", "dog"]  # so that no label moves
    assert data.train_set.labels.tolist() == [0] * 3
    for picture in classes.glob("*/*.png"):
        picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"it holds none but 3 \.tiff, 1 \.heic"):
        read(classes)


def test_a_class_without_training_pictures_is_mentioned(tmp_path, photo):
    for i in range(8):
        (tmp_path / f"class{i}").mkdir()
        photo(9, 9).save(tmp_path / f"class{i}" / "a.png")
    with pytest.warns(UserWarning, match="val_share: all pictures of class.* are for validation"):
        read(tmp_path, val_share=0.5)


@pytest.mark.filterwarnings("ignore:skipped")
def test_pipes_and_devices_are_not_opened(classes):
    os.mkfifo(classes / "cat" / "3.png")
    (classes / "cat" / "4.jpg").symlink_to("/dev/zero")
    (classes / "cat" / "5.jpg").symlink_to("nowhere")
    with pytest.warns(UserWarning, match=r"3 of 9 .*: cat/3\.png, cat/4\.jpg, cat/5\.jpg"):
        data = read(classes, max_unreadable=0.5)
    assert data.train_set.names == EXPECTED


def test_names_that_are_no_text_are_read(classes):
    cats, dogs = os.fsencode(classes / "cat"), os.fsencode(classes / "dog")
    os.rename(cats + b"/0.png", cats + b"/\xff.png")
    os.rename(dogs, os.fsencode(classes) + b"/d\xf6g")
    data = read(classes, val_share=0.3)
    assert len(data.train_set) + len(data.val_set) == 6
    assert data.spec.classes == ("cat", "d\\xf6g")
    assert len(data.fingerprint("train")) == 16


def test_composed_and_decomposed_names_are_one_class(classes):
    (classes / "cat").rename(classes / unicodedata.normalize("NFD", "café"))
    assert read(classes).classes == ["café", "dog"]
