"""From a file to a square of pixels."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image, ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
PIXELS = 40_000_000  # of a picture as it is decoded, so that memory stays below 1 GB
DRAFT = 2  # a large JPEG is decoded at an eighth, a quarter or half, if that is so many times size


def read_picture(path: Path, size: int, channels: int) -> Tensor:
    """Returns a picture, upright, its shorter side resized and its centre cropped.

    It is uint8 (channels, size, size). A JPEG whose shorter side is at least four times `size` is
    decoded at a fraction of its size, by averages of pixels, which is much faster.

    Args:
        path: JPEG, PNG, WebP, BMP or GIF (its first frame).
        size: Height and width of the result.
        channels: 1 for grey, 3 for colour.

    Raises:
        ValueError: If it cannot be read, or has too many pixels.
    """
    from PIL import ImageOps

    with open_picture(path) as file:
        pixels = math.prod(file.size)
        file.draft(None, (DRAFT * size, DRAFT * size))
        if not file.info.get("progressive"):  # of which libjpeg keeps all coefficients
            pixels = math.prod(file.size)
        if pixels > PIXELS:
            raise ValueError(f"{pixels:,} pixels; expected at most {PIXELS:,}")
        ImageOps.exif_transpose(file, in_place=True)
        image = square(file, size, "L" if channels == 1 else "RGB")
    values = torch.from_numpy(np.array(image))
    return values[None] if channels == 1 else values.permute(2, 0, 1).contiguous()


def read_whole(path: Path) -> Tensor:
    """Returns a picture, upright, of its own size and in colour, uint8 (3, H, W).

    Args:
        path: JPEG, PNG, WebP, BMP or GIF (its first frame).

    Raises:
        ValueError: If it cannot be read, or has too many pixels.
    """
    from PIL import ImageOps

    with open_picture(path) as file:
        if (pixels := math.prod(file.size)) > PIXELS:
            raise ValueError(f"{pixels:,} pixels; expected at most {PIXELS:,}")
        ImageOps.exif_transpose(file, in_place=True)
        image = opaque(file).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@contextmanager
def open_picture(path: Path) -> "Iterator[ImageFile.ImageFile]":
    """Opens a picture of one of the formats, without decoding it.

    Raises:
        ValueError: If it cannot be read, also later in the block, or is no regular file: reading a
            pipe or a device may never end.
    """
    from PIL import Image

    if not path.is_file():
        raise ValueError("no regular file")
    try:
        with Image.open(path, formats=FORMATS) as file:
            yield file
    # Decoders fail in many ways: OSError, SyntaxError, struct.error, zlib.error, …
    except Exception as error:
        raise ValueError(str(error)) from error


def upright_size(path: Path) -> tuple[int, int]:
    """Returns width and height of a picture as one sees it, without decoding it."""
    with open_picture(path) as file:
        turned = file.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # Orientation
        return (file.height, file.width) if turned else (file.width, file.height)


def opaque(image: "Image.Image") -> "Image.Image":
    """Returns 8 bits per channel, with what is transparent on white."""
    from PIL import Image

    if image.mode.startswith("I"):
        # 16-bit grey; convert() would clip it at 255.
        return Image.fromarray(np.rint(np.asarray(image, np.float32) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def square(image: "Image.Image", size: int, mode: str) -> "Image.Image":
    """Returns the shorter side resized to `size` with antialiasing, and the centre cropped.

    Only the centre is resized, as the whole may be much larger than the result.
    """
    from PIL import Image

    window, box = [], []
    for side in image.size:
        resized = round(side * size / min(image.size))
        scale, first = side / resized, (resized - size) // 2
        low, high = first * side / resized, (first + size) * side / resized
        reach = math.ceil(2 * max(scale, 1)) + 1  # of the bicubic filter, and rounding
        window.append((max(math.floor(low) - reach, 0), min(math.ceil(high) + reach, side)))
        box.append((low - window[-1][0], high - window[-1][0]))
    (left, right), (top, bottom) = window
    centre = opaque(image.crop((left, top, right, bottom))).convert(mode)
    (left, right), (top, bottom) = box
    if min(image.size) == size:
        return centre.crop((int(left), int(top), int(right), int(bottom)))
    return centre.resize((size, size), Image.Resampling.BICUBIC, (left, top, right, bottom))


def looks_complete(path: Path) -> bool:
    """Whether a JPEG, PNG, WebP, BMP or GIF starts and ends as it should.

    Otherwise it needs a closer look, and may still be a picture. Decoding a large folder up front
    would take as long as an epoch; files that are cut short show it at their ends.
    """
    try:
        if not path.is_file():  # opening a pipe waits for somebody to write
            return False
        with path.open("rb") as file:
            head = file.read(16)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 12, 0))
            tail = file.read()
    except OSError:
        return False
    riff, bmp = (int.from_bytes(head[i : i + 4], "little") for i in (4, 2))  # sizes they state
    ends = {
        b"\xff\xd8\xff": tail.endswith(b"\xff\xd9"),
        b"\x89PNG\r\n\x1a\n": tail[4:8] == b"IEND",
        b"GIF8": tail.endswith(b"\x3b"),
        b"RIFF": size == 8 + riff and head[8:12] == b"WEBP",
        b"BM": size == bmp,
    }
    return any(whole and head.startswith(magic) for magic, whole in ends.items())


def is_readable(path: Path, size: int, channels: int) -> bool:
    """Whether a picture can be read; it is decoded only if it does not look complete."""
    try:
        return looks_complete(path) or read_picture(path, size, channels) is not None
    except ValueError:
        return False
