"""Images with their captions under them, as one picture."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

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
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    if len(texts) != len(images) or not len(images):
        raise ValueError(
            f"captioned: {len(texts)} captions, expected as many as images, {len(images)}, "
            "and at least one"
        )
    zoom = math.ceil(WIDE / images.shape[-1])
    x = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    x = x.expand(-1, 3, -1, -1).repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    height, width = x.shape[-2:]
    font = ImageFont.load_default(FONT)
    lines = [wrapped(text, lambda words: font.getlength(words) <= width) for text in texts]
    step = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else FONT + 3
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


def wrapped(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Returns the lines of a text, at most `LINES`; a word that is too long is broken.

    Args:
        text: The words.
        fits: Whether a line is short enough; one letter always is.
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
    if len(lines) <= LINES:
        return lines
    last = lines[LINES - 1]
    while last and not fits(f"{last}…"):
        last = last[:-1]
    return [*lines[: LINES - 1], f"{last.rstrip()}…"]


def class_name(data: Any, label: int) -> str:
    """Returns the name of a class of the data, or its number where it has none."""
    classes = getattr(data, "classes", None) or ()
    return str(classes[label]) if label < len(classes) else str(label)
