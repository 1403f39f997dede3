import pytest
import torch

from diffusion.plots.captioned import LINES, MARGIN, WIDE, captioned, labelled, wrapped, written


def ten_letters(line):
    return len(line) <= 10


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("red fox", ["red fox"]),
        ("a red fox in snow", ["a red fox", "in snow"]),
        ("  two   spaces ", ["two spaces"]),
        ("a extraordinarily", ["a", "extraordin", "arily"]),
        ("extraordinarily a", ["extraordin", "arily a"]),
        ("abcdefghij", ["abcdefghij"]),
    ],
)
def test_words_are_wrapped(text, lines):
    assert wrapped(text, ten_letters) == lines


def test_long_captions_end():
    lines = wrapped("word " * 100, ten_letters)
    assert len(lines) == LINES
    assert lines[-1] == "word word…"
    assert wrapped("a" * 100, ten_letters)[-1] == "aaaaaaaaa…"
    assert all(len(line) <= 10 for line in wrapped("a" * 100, ten_letters))


def test_images_are_where_they_should_be():
    images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    page = captioned(images, ["a cat", "", "x", "y", "z"], 3)
    assert page.dtype == torch.uint8
    assert page.shape[0] == 3
    assert page.shape[2] == 3 * (WIDE + MARGIN) + MARGIN
    height = page.shape[1]
    for i, level in enumerate([0, 64, 128, 191, 255]):
        top = MARGIN if i < 3 else MARGIN + (height - MARGIN) // 2
        left = MARGIN + i % 3 * (WIDE + MARGIN)
        part = page[:, top : top + WIDE, left : left + WIDE].int()
        assert (part - level).abs().max() <= 1, i
    under = page[:, MARGIN + WIDE : MARGIN + WIDE + 20].float()
    assert under[..., MARGIN : MARGIN + 60].min() < 100  # letters
    assert under[..., 2 * MARGIN + WIDE : 2 * (MARGIN + WIDE)].min() == 255  # of the empty caption


def test_rows_are_as_high_as_their_captions():
    images = torch.zeros(2, 1, 64, 64)
    low, high = captioned(images, ["a", "b"], 2), captioned(images, ["a", "many words " * 6], 2)
    assert low.shape[2] == high.shape[2]
    assert low.shape[1] < high.shape[1]
    assert captioned(images, ["a", "b"], 5).shape == low.shape  # no empty columns


def test_each_image_needs_a_caption():
    with pytest.raises(ValueError, match="texts: 1; expected one for each of 2 images"):
        captioned(torch.zeros(2, 3, 8, 8), ["a"], 2)


def test_rows_have_names_and_stay_as_they_are():
    grid = torch.randint(0, 256, (3, 3 * 34 + 2, 70), dtype=torch.uint8)
    page = labelled(grid, ["кот", "", "a very long name of a class that does not fit " * 3])
    assert torch.equal(page[:, :, -70:], grid)
    margin = page[:, :, :-70]
    assert margin.shape[2] <= WIDE + 2 * MARGIN
    dark = [margin[:, 34 * i + 1 : 34 * i + 35].min() < 100 for i in range(3)]
    assert dark == [True, False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve cafe\u0301", "naïve café"),
        ("кот, γάτα, قط", "кот, γάτα, قط"),
        ("猫 cat", "U+732B cat"),
        ("🦊", "U+1F98A"),
    ],
)
def test_letters_that_the_font_lacks_are_numbers(text, expected):
    assert written(text) == expected


def test_letters_of_other_scripts_are_no_boxes():
    pages = [captioned(torch.zeros(1, 1, 8, 8), [letter], 1) for letter in "жщω"]
    assert not torch.equal(pages[0], pages[1])
    assert not torch.equal(pages[1], pages[2])
