import pytest
import torch

from diffusion.spec import DATA, DataSpec

SHAPES = DataSpec("ImageFolder", (3, 8, 8), 2, ("circle", "square"))


def test_plain_values_give_it_back(tmp_path):
    torch.save({DATA: SHAPES.plain()}, tmp_path / "a.pt")
    assert DataSpec.read(torch.load(tmp_path / "a.pt", weights_only=True)) == SHAPES
    assert DataSpec.read({}) is None


@pytest.mark.parametrize(
    "damaged",
    [
        5,
        [],
        {"name": "a"},
        {"name": 3, "shape": [2]},
        {"name": "a", "shape": [True]},
        {"name": "a", "shape": "38"},
        {"name": "a", "shape": [2], "num_classes": -1},
        {"name": "a", "shape": [2], "num_classes": 2, "classes": ["one"]},
        {"name": "a", "shape": [2], "levels": 1},
        {"name": "a", "shape": [2], "more": 1},
    ],
)
def test_what_is_no_description_is_one_line(damaged):
    with pytest.raises(ValueError, match="its description of the data is damaged") as error:
        DataSpec.read({DATA: damaged})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (SHAPES, None),
        (DataSpec("Other", (3, 8, 8), 2, ("circle", "square")), None),
        (DataSpec(None, (3, 8, 8), 2, levels=None), None),
        (
            DataSpec("ImageFolder", (3, 4, 4), 2, ("circle", "square")),
            ("samples of shape (3, 8, 8)", "(3, 4, 4)"),
        ),
        (
            DataSpec("ImageFolder", (3, 8, 8), 2, ("circle", "square"), 17),
            ("256 grey levels", "17 grey levels"),
        ),
        (
            DataSpec("ImageFolder", (3, 8, 8), 2, ("square", "circle")),
            ("'circle' as class 0", "'square'"),
        ),
        (
            DataSpec("ImageFolder", (3, 8, 8), 3, ("circle", "oval", "square")),
            ("2 classes", "3 classes ('oval' is one)"),
        ),
        (DataSpec("ImageFolder", (3, 8, 8)), ("2 classes", "no classes")),
        (
            DataSpec("Bars", (3, 8, 8), 2),
            ("the labels of ImageFolder", "those of Bars"),
        ),
    ],
)
def test_the_first_difference_is_said(other, found):
    assert SHAPES.difference(other) == found
    same = other.shape == SHAPES.shape and other.levels in (256, None)
    assert (SHAPES.difference(other, labels=False) is None) == same


def test_a_class_with_another_number_is_found():
    assert SHAPES.moved(DataSpec("A", (1,), 3, ("circle", "oval", "square"))) == "square"
    assert SHAPES.moved(DataSpec("A", (1,), 3, ("circle", "square", "oval"))) is None
    assert SHAPES.moved(DataSpec("A", (1,), 2, ("cat", "dog"))) is None
