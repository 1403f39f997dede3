"""Between the bytes of an image file and the model's numbers in [−1, 1]."""

from collections.abc import Mapping

import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffusion import __version__


def scaled(images: Tensor, levels: int = 256) -> Tensor:
    """Returns x = 2 v / (levels − 1) − 1 as float32, of the levels v = 0 … levels − 1."""
    return images.float() / (levels - 1) * 2 - 1


def ground(x: Tensor) -> Tensor:
    """Returns the median of the outermost pixels of images (B, C, H, W), by channel, (B, C)."""
    rows, sides = x[:, :, [0, -1], :], x[:, :, 1:-1, [0, -1]]
    return torch.cat([rows.flatten(2), sides.flatten(2)], 2).median(2).values


def rounded(x: Tensor) -> Tensor:
    """Returns the nearest of 256 levels as uint8, x clamped to [−1, 1]: the inverse of `scaled`."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def quantize(x: Tensor) -> Tensor:
    """Returns ⌊min(127.5·x + 128, 255)⌋ as uint8, x clamped to [−1, 1] first.

    This is the rule of EDM's generate.py (Karras et al. 2022). Real and generated images both pass
    through it, so that neither side differs by its rounding.

    Args:
        x: Images of any shape, floating point.
    """
    return (x.float().clamp(-1, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def text_chunks(about: Mapping[str, str]) -> PngInfo:
    """Returns a PNG's text chunks "diffusion.seed" and the like, which say how it was made.

    Args:
        about: What they say, to which the version is added; nothing if it is empty.
    """
    info = PngInfo()
    for key, text in ({**about, "version": __version__} if about else {}).items():
        info.add_itxt(f"diffusion.{key}", text)
    return info
