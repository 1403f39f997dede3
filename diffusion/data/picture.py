"""From a folder to its picture files, and from a file to a square of pixels."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def picture_names(root: Path) -> list[str]:
    """Paths of the pictures under a folder, relative to it, sorted; hidden ones left out.

    Raises:
        FileNotFoundError: The folder is missing or holds no picture.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"root: {str(root)!r} is no folder, expected one with pictures")
    names = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        names += [
            (Path(folder) / file).relative_to(root).as_posix()
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        ]
    if not names:
        raise FileNotFoundError(
            f"root: {str(root)!r} holds no picture, expected {', '.join(SUFFIXES)}"
        )
    return sorted(names)


def read_picture(path: Path, size: int, channels: int) -> Tensor:
    """Decode a picture, turn it upright, resize its shorter side and crop its centre.

    Args:
        path: JPEG, PNG, WebP, BMP or GIF (its first frame).
        size: Height and width of the result.
        channels: 1 for grey, 3 for colour.

    Returns:
        uint8 (channels, size, size).
    """
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        image = square(opaque(image).convert("L" if channels == 1 else "RGB"), size)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def opaque(image: "Image.Image") -> "Image.Image":
    """8 bits per channel, with what is transparent on white."""
    from PIL import Image

    if image.mode.startswith("I"):
        # 16-bit grey; convert() would clip it at 255.
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def square(image: "Image.Image", size: int) -> "Image.Image":
    """Resize the shorter side to `size` with antialiasing, then crop the centre."""
    from PIL import Image

    shorter = min(image.size)
    if shorter != size:
        width, height = (round(side * size / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
