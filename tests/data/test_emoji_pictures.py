"""How emoji are drawn, named and described, against closed forms and published values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffusion.common.palette import NAMES, lab
from diffusion.data.emoji.captions import captions, long, short
from diffusion.data.emoji.colours import colours
from diffusion.data.emoji.emoji import splits
from diffusion.data.emoji.packs import _svg
from diffusion.data.emoji.table import Entry, from_emojibase, from_scistag
from diffusion.data.reading.svg import SIDE, drawn, on_white


def noise(side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)


def laid_on_white(rgba):
    alpha = torch.from_numpy(rgba[..., 3:].astype(np.float64) / 255)
    laid = torch.from_numpy(rgba[..., :3].astype(np.float64)) * alpha + 255 * (1 - alpha)
    return laid.permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [8, 32, 64, 128])
def test_pictures_are_averages_of_squares_on_white(size):
    rgba = noise()
    expected = F.interpolate(laid_on_white(rgba), (size, size), mode="area")[0]
    assert np.abs(on_white(rgba, size) - expected.numpy()).max() <= 0.5 + 1e-9


def test_areas_that_cut_pixels_take_their_share():
    rgba = noise(15)
    fine = laid_on_white(rgba).repeat_interleave(8, 2).repeat_interleave(8, 3)
    expected = F.interpolate(fine, (8, 8), mode="area")[0]
    assert np.abs(on_white(rgba, 8) - expected.numpy()).max() <= 0.5 + 1e-9


def test_32_is_a_reduction_of_64():
    rgba = noise(seed=1)
    small, large = (torch.from_numpy(on_white(rgba, size)).double() for size in (32, 64))
    assert (F.avg_pool2d(large[None], 2)[0] - small).abs().max() <= 1


def test_svg_is_drawn_where_its_coordinates_say():
    body = (
        '<path fill="#08f" d="M4 2h8v4H4z"/><path fill="#f00" fill-opacity=".5" d="M0 0h2v8H0z"/>'
    )
    rgba = drawn(_svg({"body": body}, {"width": 16, "height": 8}))
    expected = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    expected[6 * 8 : 10 * 8, 4 * 8 : 12 * 8] = 0, 136, 255, 255
    expected[4 * 8 : 12 * 8, : 2 * 8] = 255, 0, 0, 128  # the box is widened above and below
    assert np.abs(rgba.astype(int) - expected).max() <= 1
    assert on_white(rgba, 16)[:, 5, 0] == pytest.approx([255, 127, 127], abs=1)


def test_lab_has_the_published_values():
    rgb = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]
    expected = [
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [100, 0, 0],
        [0, 0, 0],
    ]
    found = lab(np.array(rgb, dtype=np.uint8))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_colours_are_counted_where_the_picture_is_opaque():
    rgba = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    rgba[: SIDE // 4, :, :] = 255, 0, 0, 255
    rgba[: SIDE // 4, : SIDE // 4, :3] = 0, 60, 200  # a quarter of what is seen
    rgba[0:4, -4:, :3] = 0, 255, 0  # less than a fifth
    assert colours(rgba) == ["red", "blue"]
    assert colours(np.zeros_like(rgba)) == ["white"]
    assert len(NAMES) == 13
    for name, examples in NAMES.items():
        for rgb in examples:
            rgba[...] = *rgb, 255
            assert colours(rgba) == [name]


@pytest.mark.parametrize(
    ("style", "name", "tones", "expected"),
    [
        ("google", "red apple", (), "a google emoji of a red apple"),
        ("openmoji", "owl", (), "an openmoji emoji of an owl"),
        ("google", "unicorn", (), "a google emoji of a unicorn"),
        ("google", "grapes", (), "a google emoji of grapes"),
        ("google", "octopus", (), "a google emoji of an octopus"),
        ("google", "dress", (), "a google emoji of a dress"),
        ("google", "face with open eyes", (), "a google emoji of a face with open eyes"),
        ("google", "people hugging", (), "a google emoji of people hugging"),
        ("google", "women with bunny ears", (), "a google emoji of women with bunny ears"),
        ("google", "men’s room", (), "a google emoji of a men's room"),
        ("google", "keycap: 5", (), "a google emoji of a keycap 5"),
        ("twitter", "man: beard", ("dark",), "a twitter emoji of a man, beard with dark skin"),
        (
            "microsoft",
            "women holding hands",
            ("light", "medium-dark"),
            "a microsoft emoji of women holding hands with light and medium-dark skin",
        ),
    ],
)
def test_short_captions(style, name, tones, expected):
    assert short(style, Entry("1", "1", name, "person", tones=tones)) == expected


def test_long_captions():
    tags = ("Polo", "water", "sport", ":-)", "100", "swimming", "ball", "pool", "team")
    entry = Entry("1", "1", "man playing water polo", "person-sport", tags)
    text = long("google", entry, ["brown", "light blue"])
    begin = "a google emoji of a man playing water polo. "
    begin += "brown and light blue person sport picture, showing "
    assert text.startswith(begin)
    words = text.removeprefix(begin).split(", ")
    assert len(words) == 4
    assert set(words) < {"sport", "swimming", "ball", "pool", "team"}
    assert text == long("google", entry, ["brown", "light blue"])
    orders = {long(style, entry, ["red"]).split("showing")[1] for style in "abcdefgh"}
    assert len(orders) > 1
    bare = Entry("2", "2", "owl", "animal-bird")
    assert captions("long", "google", bare, ["brown"]) == (
        "a google emoji of an owl. brown animal bird picture",
    )
    assert captions("both", "google", bare, ["brown"])[0] == short("google", bare)


def test_the_two_tables_agree():
    tones = ["light skin tone", "medium-dark skin tone"]
    names = {
        "1F600": ("grinning face", "face-smiling"),
        "1F91D": ("handshake", "hands"),
        "1FAF1_1F3FB_200D_1FAF2_1F3FE": ("handshake: " + ", ".join(tones), "hands"),
        "1F48F": ("kiss", "family"),
        "1F469_200D_2764_FE0F_200D_1F468": ("kiss: woman, man", "family"),
        "1F469_1F3FB_200D_2764_FE0F_200D_1F468_1F3FE": (
            "kiss: woman, man, " + ", ".join(tones),
            "family",
        ),
        "1F98B": ("butterfly", "animal-bug"),
        "2600_FE0F": ("sun", "sky & weather"),
        "1F1EB_1F1F7": ("flag: France", "country-flag"),
    }
    older = from_scistag({c: {"name": n, "subgroup": s} for c, (n, s) in names.items()})
    groups = {"subgroups": dict(enumerate(["face-smiling", "hands", "family", "animal-bug"]))}
    groups["subgroups"] = {str(i): name for i, name in groups["subgroups"].items()}
    groups["subgroups"]["4"] = "sky-weather"
    both = {"tone": [1, 4]}
    newer = from_emojibase(
        [
            {"hexcode": "1F600", "label": "grinning face", "subgroup": 0},
            {
                "hexcode": "1F91D",
                "label": "handshake",
                "subgroup": 1,
                "skins": [{"hexcode": "1FAF1-1F3FB-200D-1FAF2-1F3FE", **both}],
            },
            {"hexcode": "1F48F", "label": "kiss", "subgroup": 2},
            {
                "hexcode": "1F469-200D-2764-FE0F-200D-1F468",
                "label": "kiss: woman, man",
                "subgroup": 2,
                "skins": [
                    {"hexcode": "1F469-1F3FB-200D-2764-FE0F-200D-1F468-1F3FE", **both},
                ],
            },
            {"hexcode": "1F98B", "label": "butterfly", "subgroup": 3},
            {"hexcode": "2600", "label": "sun", "subgroup": 4},
        ],
        groups,
    )
    assert older == newer
    assert newer["1faf1-1f3fb-200d-1faf2-1f3fe"].base == "1f91d"
    assert newer["1faf1-1f3fb-200d-1faf2-1f3fe"].tones == ("light", "medium-dark")


def test_shares_of_many_concepts():
    names = [f"{i:x}" for i in range(4000)]
    styles = {"a": names, "b": [*names, names[0]], "c": names[:2000]}
    found = splits([(name, style) for style, concepts in styles.items() for name in concepts])
    pairs = {split: len(groups) for split, groups in found.items()}
    assert sum(pairs.values()) == 10_000
    assert pairs["val"] == pytest.approx(500, abs=100)
    assert pairs["test"] == pytest.approx(500, abs=100)
    assert pairs["pairs"] == pytest.approx(450, abs=90)
    assert [4000, 8000] in [group for groups in found.values() for group in groups]
