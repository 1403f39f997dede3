"""A checkpoint knows its classes: other ones are refused, and samples need no pictures."""

import copy
import json
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image
from tiny import TINY

COLOURS = {"circle": "red", "square": "blue"}


def fill(root, folder, colour, n=12):
    (root / folder).mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (8, 8), colour).save(root / folder / f"{i}.png")


def config(root, **model):
    made = copy.deepcopy(TINY)
    made["model"]["network"]["init_args"] |= {"in_channels": 3, "num_classes": 2}
    made["model"] |= model
    data = {"root": str(root), "size": 8, "batch_size": 4, "samples": 4, "val_share": 0.2}
    made["data"] = {"class_path": "ImageFolder", "init_args": data}
    return made


@pytest.fixture(scope="module")
def made(once):
    with once("classes") as run:
        for folder, colour in COLOURS.items():
            fill(run.folder / "pictures", folder, colour)
        run.write("tiny.yaml", config(run.folder / "pictures"))
        run.fit()
    return run


@pytest.fixture
def shapes(run, made):
    """A copy of a finished run of two classes, with its pictures, to be changed."""
    shutil.copytree(made.folder / "run", run.folder / "run", symlinks=True)
    shutil.copytree(made.folder / "pictures", run.folder / "pictures")
    run.write("tiny.yaml", config(run.folder / "pictures"))
    return run


def test_every_checkpoint_says_what_it_was_trained_on(made):
    assert made.load()["data"] == {
        "name": "ImageFolder",
        "shape": [3, 8, 8],
        "num_classes": 2,
        "classes": ["circle", "square"],
        "levels": 256,
        "captioned": False,
    }


def add(root):
    fill(root, "oval", "green")


def rename(root):
    (root / "circle").rename(root / "zircle")


def swap(root):
    (root / "circle").rename(root / "x")
    (root / "square").rename(root / "circle")
    (root / "x").rename(root / "square")


LAST = "run/checkpoints/last.ckpt"
ADDED = (add, "3 classes ('oval' is one); expected 2 classes", "[circle, square]")
MOVED = (rename, "'square'; expected 'circle' as class 0", "{FOLDER: circle, square: square}")


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (["test", "--ckpt_path", LAST], ADDED),
        (["validate", "--ckpt_path", LAST], MOVED),
        (["fit", "--ckpt_path", LAST, "--trainer.max_steps", "6"], MOVED),
        (["fit", "--config", "tiny.yaml", "--ckpt_path", "last"], ADDED),
    ],
)
def test_other_classes_are_refused_and_can_be_mapped(shapes, monkeypatch, refused, command, change):
    monkeypatch.setattr(
        "diffusion.metrics.features.lenet.LeNet.prepare", lambda *_, **__: pytest.fail("prepared")
    )
    happens, says, mend = change
    happens(Path("pictures"))
    line = refused(*command, "--data.root", str(Path("pictures").absolute()))
    assert line.startswith(f"data: ImageFolder has {says}")
    assert f"--data.classes '{mend}'" in line


def test_a_mapped_folder_keeps_its_number_and_its_split(shapes, made):
    from diffusion.data import ImageFolder

    before = ImageFolder(str(made.folder / "pictures"), 8, val_share=0.2)
    before.setup("fit")
    rename(Path("pictures"))
    add(Path("pictures"))
    named = {"zircle": "circle", "square": "square"}
    after = ImageFolder("pictures", 8, val_share=0.2, classes=named)
    with pytest.warns(UserWarning, match=r"data\.classes: left out oval, 1 folders"):
        after.setup("fit")
    assert after.spec == before.spec
    for split in ("train_set", "val_set"):
        old = [n.replace("circle", "zircle") for n in getattr(before, split).names]
        new = dict(zip(getattr(after, split).names, getattr(after, split).labels.tolist()))
        assert new == dict(zip(old, getattr(before, split).labels.tolist()))
    flags = ["--data.root", "pictures", "--data.classes", json.dumps(named)]
    shapes("validate", "--ckpt_path", shapes.last, *flags)


def test_folders_can_be_chosen_ordered_and_merged(shapes):
    from diffusion.data import ImageFolder

    add(Path("pictures"))

    def read(classes):
        data = ImageFolder("pictures", 8, val_share=0.0, classes=classes)
        data.setup("fit")
        return data.classes, data.train_set.labels.bincount().tolist()

    assert read(["square", "circle", "oval"]) == (["square", "circle", "oval"], [12] * 3)
    merged = {"circle": "round", "oval": "round", "square": "square"}
    assert read(merged) == (["round", "square"], [24, 12])
    with pytest.raises(ValueError, match=r"data\.classes: no folder 'circel' .* is 'circle'"):
        read(["circel", "square"])
    with pytest.raises(
        ValueError, match=r"no folder 'ring' .* expected some of \['circle', 'oval'\]"
    ):
        read(["ring", "square"])
    shutil.rmtree("pictures/oval")
    with pytest.warns(UserWarning, match=r"data\.classes: no pictures of oval in 'pictures'"):
        assert read(["circle", "oval", "square"])[1] == [12, 0, 12]
    with pytest.raises(ValueError, match=r"data\.classes: \['a', 'a'\]; expected null or"):
        read(["a", "a"])


def test_what_reads_no_labels_does_not_mind(run):
    fill(run.folder / "pictures", "circle", "red")
    fill(run.folder / "pictures", "square", "blue")
    content = config(run.folder / "pictures", p_uncond=0.0)
    content["model"]["network"]["init_args"]["num_classes"] = None
    run.write("tiny.yaml", content)
    run.fit()
    rename(Path("pictures"))
    run("validate", "--ckpt_path", run.last)


def test_another_size_is_refused(shapes, refused):
    line = refused("validate", "--ckpt_path", shapes.last, "--data.size", "16")
    assert "data: ImageFolder has (3, 16, 16); expected samples of shape (3, 8, 8)" in line
    assert "data.size: 8 and data.channels: 3" in line


def test_predict_needs_no_pictures(shapes, tmp_path):
    with_pictures = ["--writer.folder", "a"]
    shapes("predict", "--ckpt_path", shapes.last, "--data.root", "pictures", *with_pictures)
    shutil.rmtree("pictures")
    without = ["--data.root", "gone", "--writer.folder", "b"]
    shapes("predict", "--ckpt_path", shapes.last, *without)
    drawn = sorted(x.name for x in Path("b").glob("0*.png"))
    assert drawn == ["000000_0.png", "000001_1.png", "000002_0.png", "000003_1.png"]
    assert all((Path("a") / x).read_bytes() == (Path("b") / x).read_bytes() for x in drawn)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("[squar]", "data.labels: squar; the nearest is 'square'"),
        ("[2]", "data.labels: 2; expected classes 0 .. 1, or names such as 'circle'"),
        ("[]", "data.labels: []; expected null or classes 0 .. 1"),
    ],
)
def test_labels_that_are_no_classes_are_refused(shapes, refused, labels, says):
    flags = ["--data.root", "gone", "--data.labels", labels]
    assert refused("predict", "--ckpt_path", shapes.last, *flags).startswith(says)


def test_labels_have_names(shapes):
    flags = ["--data.root", "gone", "--data.labels", "[square]"]
    shapes("predict", "--ckpt_path", shapes.last, *flags)
    names = [x.name for x in Path("run/predictions").glob("0*.png")]
    assert sorted(names) == [f"00000{i}_1.png" for i in range(4)]


def test_starting_from_other_classes_is_refused_only_where_a_name_has_moved(shapes, refused):
    start = ["--model.start", shapes.last, "--trainer.default_root_dir", "next"]
    Path("pictures/circle").rename("pictures/triangle")  # square is class 0 now
    line = refused("fit", "--config", "tiny.yaml", *start)
    assert "data.classes: 'square' is class 0; expected 1, as where training starts" in line
    Path("pictures/square").rename("pictures/oval")
    shapes("fit", "--config", "tiny.yaml", *start)
    assert torch.load("next/checkpoints/last.ckpt")["data"]["classes"] == ["oval", "triangle"]


def test_a_checkpoint_made_in_python_is_compared_too(shapes, tmp_path):
    from diffusion.data import ImageFolder
    from diffusion.systems.diffusion import Diffusion

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "devices": 1, "use_distributed_sampler": False}
    module = Diffusion.load_from_checkpoint(shapes.last)
    assert module.spec is not None
    assert module.spec.classes == ("circle", "square")
    trainer = L.Trainer(max_steps=1, max_epochs=-1, num_sanity_val_steps=0, **quiet)
    trainer.fit(module, datamodule=ImageFolder("pictures", 8, batch_size=2, val_share=0.2))
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    swap(Path("pictures"))  # the same names, so nobody can know
    rename(Path("pictures"))
    data = ImageFolder("pictures", 8, batch_size=2, val_share=0.2)
    with pytest.raises(ValueError, match="expected 'circle' as class 0"):
        L.Trainer(**quiet).validate(module, datamodule=data, ckpt_path=str(tmp_path / "mine.ckpt"))
    with pytest.raises(ValueError, match="expected 'circle' as class 0"):
        L.Trainer(**quiet).validate(module, datamodule=data)
