import shutil
from collections import Counter
from pathlib import Path

import dicebear_published as published
import numpy as np
import pytest
import torch

from diffusion.data import Avatars, KeyPoints
from diffusion.data.avatars import people
from diffusion.data.avatars.artist import Cast
from diffusion.data.avatars.avatar_caption import avatar_caption
from diffusion.data.avatars.dicebear import STYLES
from diffusion.data.avatars.kind import micah
from diffusion.data.avatars.people import Look, looks
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.key_points import key_points
from diffusion.data.reading.svg import drawn, on_white

REAL = Path(__file__).parents[2] / "data/packages"  # what `make data` has fetched
SMALL = {"size": 32, "persons": 40, "pictures": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("avatars")
    (folder / "packages").mkdir()
    shutil.copy(REAL / f"{STYLES.stem}-py3-none-any.whl", folder / "packages")
    return folder


@pytest.fixture(scope="module")
def data(root):
    made = Avatars(root=str(root), controls={"pose": KeyPoints()}, **SMALL)
    made.prepare_data()
    made.setup("fit")
    return made


@pytest.fixture(scope="module")
def artist(root):
    return Cast("micah", 40, 3).artist(root)


def test_pictures_are_those_of_dicebears_own_renderer(artist):
    expected = np.load(Path(__file__).with_name("dicebear.npz"))["pictures"]
    for chosen, picture in zip(published.CHOSEN, expected):
        parts = {**published.PARTS, **chosen}
        svg = artist.style.svg(parts, published.COLOURS, ground="#ffeba4")
        off = np.abs(on_white(drawn(svg), 32).astype(int) - picture)
        assert off.max() <= 12  # where it clips, lines that leave the canvas are smoothed otherwise
        assert (off > 1).mean() < 0.03


def test_persons_differ_in_what_is_seen_and_only_tests_have_the_unseen():
    kind, found = micah(), people.people(micah(), 1600)
    assert len({person.key for person in found}) == 1600
    assert found[:50] == people.people(kind, 50)  # more persons move none
    shares = Counter(person.split for person in found)
    assert shares["val"] == pytest.approx(1600 * 0.06 * 0.9, abs=30)
    new = {"hair turban", "hair purple"}
    for person in found:
        said = {*person.key.split(", ")}
        assert person.split == "test" or not said & new
    assert sum(bool({*person.key.split(", ")} & new) for person in found) > 80
    colours = {person.colours["base"] for person in found}
    assert len(colours) > 1500  # as good as continuous
    hairs = Counter(person.parts["hair"] for person in found)
    assert hairs["turban"] / 1600 == pytest.approx(0.4 / 7.4, abs=0.02)


def test_a_split_has_whole_persons(data):
    persons = {
        split: set(data.split(split).conditions(range(len(data.split(split))))["person"].tolist())
        for split in data.SPLITS
    }
    assert sorted(n for some in persons.values() for n in some) == list(range(40))
    assert persons["train"] == set(range(data.num_persons))
    assert sum(len(data.split(split)) for split in data.SPLITS) == 120


def test_the_condition_is_another_picture_of_the_same_person(data):
    pictures = data.split("train")
    n = len(pictures)
    seen = [set() for _ in range(n)]
    for visit in range(4):
        batch = pictures.visit(range(n), [visit] * n)
        assert (batch["image"] != batch["identity"]).flatten(1).any(1).all()
        others = pictures.others(range(n), [visit] * n)
        assert all(i != j for i, j in enumerate(others))
        known = pictures.conditions(others)
        assert torch.equal(known["person"], batch["person"])
        assert torch.equal(pictures.__getitems__(others)["image"], batch["identity"])
        for i, j in enumerate(others):
            seen[i].add(j)
    assert all(len(some) == 2 for some in seen)  # all the others, in turn
    batch = next(data.batches("val"))
    assert batch["identity"].dtype == batch["image"].dtype == torch.float32
    assert batch["identity"].aminmax() == pytest.approx((-1, 1), abs=0.2)


def test_other_pictures_are_taken_by_turns():
    persons = torch.tensor([5, 7, 5, 7, 5])
    pictures = WithAnother(None, persons, [0, 1, 2, 3, 4])
    assert [pictures.others(range(5), [v] * 5) for v in range(3)] == [
        [2, 3, 4, 1, 0],
        [4, 3, 0, 1, 2],
        [2, 3, 4, 1, 0],
    ]
    with pytest.raises(ValueError, match="person 7 has 1 picture; expected at least 2"):
        len(WithAnother(None, persons, [0, 1, 2]).groups)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("mouth", ["smile", "surprised", "frown"])
def test_landmarks_are_where_eyes_and_mouth_are_seen(artist, mouth, mirrored):
    person = next(p for p in people.people(artist.kind, 200) if len(p.parts) == 4)  # nothing worn
    parts = {"eyes": "eyes", "eyebrows": "up", "mouth": mouth, "clothes": "crew"}
    colours = {"shirt": "#ffffff", "eyes": "#ff0000", "eyebrows": "#ffffff", "mouth": "#00ff00"}
    look = Look(parts, colours, {}, "#ffffff", 11.0, 1.1, (0.04, 0.02), mirrored)
    plain = {**person.colours, "base": "#ffffff", "hair": "#ffffff"}
    person = people.Person(person.parts, plain, {}, "", "train")
    picture, points = artist.picture(person, look, 128).astype(int), artist.landmarks(person, look)
    red = (picture[0] - picture[1] > 128) & (picture[0] - picture[2] > 128)
    green = (picture[1] - picture[0] > 100) & (picture[1] - picture[2] > 100)
    y, x = np.nonzero(red)
    left = x < (x.min() + x.max()) / 2
    for point, side in zip(points[:2], (left, ~left)):
        assert 128 * point == pytest.approx([x[side].mean() + 0.5, y[side].mean() + 0.5], abs=1)
    x = np.nonzero(green)[1]
    turned = 2.5 if mouth == "surprised" else 1.5  # the outermost ink is another when it is tilted
    assert 128 * points[3:, 0] == pytest.approx([x.min() + 0.5, x.max() + 0.5], abs=turned)
    assert points[0, 0] < points[1, 0]
    assert points[3, 0] < points[4, 0]


def test_a_swap_between_two_pictures_of_one_person_is_the_second(data):
    pictures = data.split("test")
    others = pictures.others(range(6), [0] * 6)
    truth = data.swapped("test", range(6), others)
    assert torch.equal(truth, data.normalize(pictures.__getitems__(others)["image"]))
    three = data.swapped("test", [0, 0], [0, 3])
    assert torch.equal(three[0], data.normalize(pictures.__getitems__([0])["image"])[0])
    assert not torch.equal(three[1], data.normalize(pictures.__getitems__([3])["image"])[0])


def test_a_swap_keeps_the_look(data):
    """Only what is a person's differs: background and clothes do not."""
    pictures = data.split("train")
    rows = pictures.conditions(range(len(pictures)))["person"]
    j = int((rows != rows[0]).nonzero()[0])
    truth = data.swapped("train", [0], [j])[0]
    target = data.normalize(pictures.__getitems__([j])["image"])[0]
    same = (truth == target).all(0)
    assert same[0, 0]
    assert same[0, -1]
    assert 0.2 < same.double().mean() < 0.95


def test_key_points_are_discs_on_lines_to_the_nose(data):
    batch = next(data.batches("train", n=8))
    size = batch["pose"].shape[-1]
    assert batch["pose"].shape == (8, 3, size, size)
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]])
    for points, picture in zip(batch["landmarks"], batch["pose"]):
        x, y = points[4].tolist()  # drawn last, so nothing lies over it
        assert torch.allclose(picture[:, int(y), int(x)], colours[4].float(), atol=0.35)
    points = torch.tensor([[[20.5, 20.5], [80.5, 20.5], [50.5, 50.5], [30.5, 90.5], [70.5, 90.5]]])
    picture = key_points(points, 128)[0]
    for (x, y), colour in zip(points[0].long().tolist(), colours):
        assert torch.equal(picture[:, y, x], (255 * colour).byte())
    assert torch.equal(picture[:, 30, 30], torch.tensor([153, 0, 0], dtype=torch.uint8))  # 0.6
    assert picture[:, 100:].sum() == 0
    assert picture[:, 34, 30].sum() == picture[:, 30, 34].sum() == 0  # beside that line


def test_captions_say_who_and_how():
    kind = micah()
    person = people.Person(
        {"head": "standard", "hair": "fonze", "facialHair": "beard", "glasses": "round"},
        {},
        {"base": "fair", "hair": "red", "glasses": "blue", "earring": "gold"},
        "",
        "train",
    )
    look = Look(
        {"mouth": "smile", "clothes": "crew", "eyes": "eyes"},
        {},
        {"shirt": "orange"},
        "",
        0,
        1,
        (0, 0),
        False,
    )
    assert avatar_caption(kind, person, look) == (
        "a smiling person with a red quiff, fair skin, a red beard and round blue glasses, "
        "in an orange sweater"
    )


def test_looks_do_not_depend_on_how_many_there_are():
    assert looks(micah(), 3, 12)[:5] == looks(micah(), 3, 5)
    assert looks(micah(), 3, 2) != looks(micah(), 4, 2)


def test_halves_have_no_person_in_common(root, data):
    halves = [Avatars(root=str(root), half=half, **SMALL) for half in (0, 1)]
    pictures = []
    for half in halves:
        half.setup("fit")
        persons = half.split("train").conditions(range(len(half.split("train"))))["person"]
        assert set(persons.tolist()) == set(range(half.num_persons))
        pictures.append({x.numpy().tobytes() for x in next(half.batches("train"))["image"]})
        assert torch.equal(next(half.batches("test"))["image"], next(data.batches("test"))["image"])
    assert not pictures[0] & pictures[1]
    assert sum(half.num_persons for half in halves) == data.num_persons


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 20}, "data.size: 20; expected one of 8, 16"),
        ({"persons": 5}, "data.persons: 5; expected 40 … 4000"),
        ({"pictures": 1}, "data.pictures: 1; expected at least 2"),
        ({"half": 2}, "data.half: 2; expected one of 0, 1, None"),
        ({"flip": True}, "data.flip: true; expected false, as Avatars has landmarks"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        Avatars(**arguments)


def test_what_is_missing_is_named(tmp_path):
    data = Avatars(root=str(tmp_path), download=False)
    with pytest.raises(
        FileNotFoundError, match=r"data\.root: .*expected micah-64-\w+\.safetensors"
    ):
        data.setup("fit")
