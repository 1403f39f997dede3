import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.common.files import beside
from diffusion.data import ImageText
from diffusion.data.controls.beside import Beside
from diffusion.data.reading.decoding import read_picture
from diffusion.data.reading.prepare import prepare


@pytest.fixture
def pictures(tmp_path, photo):
    """All that is read in a way of its own: turned, drafted, transparent, grey, with a control."""
    cats, dogs = (tmp_path / "pictures" / name for name in ("cats", "dogs/old"))
    for folder in (cats, dogs):
        folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(90, 70).save(cats / "1.jpg", exif=exif)
    photo(400, 300, seed=1).save(cats / "2.v1.jpeg", quality=90)
    photo(40, 60, seed=2).convert("L").save(cats / "3.gif")
    rgba = np.random.default_rng(0).integers(0, 256, (31, 33, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(dogs / "4.png")
    photo(16, 16, seed=4).save(dogs / "5.webp")
    Image.fromarray(np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)).save(
        dogs / "6.png"
    )
    for i, name in enumerate(("cats/1", "cats/2.v1", "cats/3", "dogs/old/4", "dogs/old/5")):
        (tmp_path / f"pictures/{name}.txt").write_text(f"picture {name}\n")
        with Image.open(next((tmp_path / "pictures").glob(f"{name}.[jpgw]*"))) as file:
            turned = file.getexif().get(0x0112) == 6
            size = file.size[::-1] if turned else file.size
        photo(*size, seed=9 + i).convert("L").save(tmp_path / f"pictures/{name}.depth.png")
    (dogs / "6.json").write_text('{"caption": ["a wedge", "a ramp"]}')
    photo(20, 20, seed=8).convert("L").save(dogs / "6.depth.png")
    return tmp_path / "pictures"


def made(root, channels):
    controls = {"depth": Beside()}
    data = ImageText(root=str(root), size=16, channels=channels, controls=controls, val_share=0.0)
    data.setup("fit")
    return data.classes, data.train_set.__getitems__(range(len(data.train_set)))


@pytest.mark.parametrize("channels", [3, 1])
def test_training_reads_the_same_pixels_and_captions(pictures, tmp_path, channels):
    prepare(folder=str(pictures), output=str(tmp_path / "small"), size=16)
    (classes, before), (others, after) = (made(x, channels) for x in (pictures, tmp_path / "small"))
    assert classes == others == ["cats", "dogs"]
    assert before["text"] == after["text"]
    assert len(before["text"]) == 6
    assert torch.equal(before["label"], after["label"])
    assert torch.equal(before["depth"], after["depth"])
    worst = (before["image"].int() - after["image"].int()).abs().max()
    assert worst <= (0 if channels == 3 else 1)  # grey of what is rounded already


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_there_stays_and_what_cannot_be_read_is_named(pictures, tmp_path, photo, capsys):
    small, bad = tmp_path / "small", pictures / "cats/0.jpg"
    bad.write_bytes(b"\xff\xd8\xff no picture")
    (pictures / "cats/drawing.tif").write_bytes(b"")
    prepare(folder=str(pictures), output=str(small), size=16)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 unreadable: cats/0.jpg" in said
    assert "left out: 1 .tif" in said
    assert "12 pictures of 13, 0 were there, 1 are unreadable" in said
    before = state(small)
    assert not [path for path in before if path.name.startswith(".")]
    with Image.open(small / "cats/3.png") as file:
        assert (file.format, file.mode, file.size) == ("PNG", "L", (16, 16))

    (small / "cats/1.txt").write_text("a better caption")
    (small / "dogs/old/4.png").unlink()
    photo(20, 20).save(bad)
    prepare(folder=str(pictures), output=str(small), size=16, workers=1)
    said = " ".join(capsys.readouterr().out.split())
    assert "2 pictures of 13, 11 were there, 0 are unreadable" in said
    after = state(small)
    changed = {str(path.relative_to(small)) for path in after if after[path] != before.get(path)}
    assert changed == {"cats/0.png", "cats/1.txt", "dogs/old/4.png"}
    assert (small / "cats/1.txt").read_text() == "a better caption"
    assert torch.equal(
        read_picture(small / "dogs/old/4.png", 16, 3),
        read_picture(pictures / "dogs/old/4.png", 16, 3),
    )


def test_a_picture_is_whole_or_not_there(pictures, tmp_path, monkeypatch):
    def full(self, path, *_):
        path.write_bytes(b"\x89PNG half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(folder=str(pictures), output=str(tmp_path / "small"), size=16)
    assert not state(tmp_path / "small")
    assert beside(tmp_path / "a.png").suffix == ".png"  # as PIL goes by it


def test_what_cannot_be_done_is_one_line(run, refused, photo, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    photo(20, 20).save(tmp_path / "full/a.jpg")
    flags = {"folder": "full", "output": "small", "size": "16"}

    def said(**other):
        given = flags | other
        return refused("prepare", *(x for k, v in given.items() for x in (f"--{k}", v)))

    assert "folder: missing; expected a folder with pictures" in said(folder="missing")
    assert "folder: empty; expected pictures" in said(folder="empty")
    assert "output: full/small, within full; expected a folder out" in said(output="full/small")
    assert "output: full, within full" in said(output="full")
    assert "prepare.size: 0; expected at least 1" in said(size="0")
    assert "prepare.workers: -1; expected at least 0" in said(workers="-1")
    (tmp_path / "file").write_text("no folder")
    assert "output: file; expected a folder that can be written to" in said(output="file")
    run("prepare", *(x for k, v in flags.items() for x in (f"--{k}", v)))
    assert "small/a.png is 16 x 16; expected 8 x 8, or a new folder" in said(size="8")
    photo(20, 20).save(tmp_path / "full/a.webp")
    assert "expected other names where all become .png: a.jpg, a.webp" in said()
    (tmp_path / "full/a.webp").unlink()
    (tmp_path / "full/a.jpg").write_bytes(b"no picture")
    assert "expected pictures, none of 1 can be read" in said(output="other")
