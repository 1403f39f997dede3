"""Images with their captions under them, or names at the left of their rows, as one picture.

The letters are DejaVu Sans's, which comes with Matplotlib: Latin, Greek, Cyrillic, Arabic and more,
but neither Chinese, Japanese and Korean nor emoji. What it lacks is written as a number, U+4E2D.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion.common.pixels import rounded

WIDE = 128  # images are shown at least this wide, each pixel a square, so that words fit under them
MARGIN = 6
FONT = 11  # height of letters
LINES = 6  # a longer caption ends with "…"


def captioned(images: Tensor, texts: Sequence[str], columns: int) -> Tensor:
    """Returns one uint8 picture (3, H', W') of images, row by row, the caption under each.

    A row is as high as its longest caption needs.

    Args:
        images: (B, C, H, W) in [−1, 1], C = 1 or 3.
        texts: B captions.
        columns: Images a row.

    Raises:
        ValueError: If there are more or fewer captions than images, or none.
    """
    if len(texts) != len(images) or not len(images):
        raise ValueError(f"texts: {len(texts)}; expected one for each of {len(images)} images")
    zoom = math.ceil(WIDE / images.shape[-1])
    x = rounded(images.detach().cpu())
    x = x.expand(-1, 3, -1, -1).repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    height, width = x.shape[-2:]
    font, _ = letters()
    lines = [wrapped(written(text), lambda words: font.getlength(words) <= width) for text in texts]
    step = sum(font.getmetrics())
    rows = [range(i, min(i + columns, len(x))) for i in range(0, len(x), columns)]
    tall = [max(len(lines[i]) for i in row) * step + height + 2 * MARGIN for row in rows]
    size = (min(columns, len(x)) * (width + MARGIN) + MARGIN, sum(tall) + MARGIN)
    page = Image.new("RGB", size, "white")
    pen, top = ImageDraw.Draw(page), MARGIN
    for row, deep in zip(rows, tall):
        for column, i in enumerate(row):
            left = MARGIN + column * (width + MARGIN)
            page.paste(Image.fromarray(x[i].permute(1, 2, 0).numpy()), (left, top))
            for k, line in enumerate(lines[i]):
                pen.text((left, top + height + MARGIN // 2 + k * step), line, "black", font)
        top += deep
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()


def labelled(grid: Tensor, names: Sequence[str]) -> Tensor:
    """Returns a picture (3, H, W') with a name at the left of each of its rows, which are alike.

    Args:
        grid: uint8 (3, H, W), as `pictures.grid` makes it; it stays as it is, on the right.
        names: One for each row, or none.
    """
    if not names:
        return grid
    font, _ = letters()
    step, row = sum(font.getmetrics()), grid.shape[1] / len(names)
    most = max(1, int(row / step))
    lines = [
        wrapped(written(name), lambda words: font.getlength(words) <= WIDE, most) for name in names
    ]
    width = math.ceil(max(font.getlength(line) for words in lines for line in words)) + 2 * MARGIN
    margin = Image.new("RGB", (width, grid.shape[1]), "white")
    pen = ImageDraw.Draw(margin)
    for i, words in enumerate(lines):
        top = (i + 0.5) * row - len(words) * step / 2
        for k, line in enumerate(words):
            left = width - MARGIN - font.getlength(line)
            pen.text((left, top + k * step), line, "black", font)
    return torch.cat([torch.from_numpy(np.array(margin)).permute(2, 0, 1), grid], 2).contiguous()


@cache
def letters() -> tuple[ImageFont.FreeTypeFont, frozenset[int]]:
    """Returns the font, and the code points that it has."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    path = str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(path, FONT), frozenset(FT2Font(path).get_charmap())


def written(text: str) -> str:
    """Returns a text in composed letters of the font; others by their numbers, U+4E2D."""
    known = letters()[1]
    return "".join(
        letter if letter.isspace() or ord(letter) in known else f"U+{ord(letter):04X}"
        for letter in unicodedata.normalize("NFC", text)
    )


def wrapped(text: str, fits: Callable[[str], bool], most: int = LINES) -> list[str]:
    """Returns the lines of a text; a word that is too long is broken.

    Args:
        text: The words.
        fits: Whether a line is short enough; one letter always is.
        most: How many lines there may be.
    """
    lines: list[str] = [""]
    for word in text.split():
        if fits(longer := f"{lines[-1]} {word}".strip()):
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if lines[-1] and not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and not fits(f"{last}…"):
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip()}…"]


def class_name(classes: Sequence[str], label: int) -> str:
    """Returns the name of a class, or its number where it has none."""
    return str(classes[label]) if label < len(classes) else str(label)
