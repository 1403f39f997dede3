"""How SVG is drawn: once as `SIDE` × `SIDE` RGBA pixels; smaller ones are averages of that one."""

import io

import numpy as np

SIDE = 128


def drawn(picture: str | bytes) -> np.ndarray:
    """Returns an SVG drawn, or the middle of a PNG file: uint8 (SIDE, SIDE, 4), alpha apart."""
    from PIL import Image

    if isinstance(picture, str):
        from resvg_py import svg_to_bytes

        picture = svg_to_bytes(svg_string=picture, width=SIDE, height=SIDE, skip_system_fonts=True)
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as file:
        pixels = np.array(file.convert("RGBA"))
    top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def on_white(rgba: np.ndarray, size: int) -> np.ndarray:
    """Returns a square picture on white as means of equal areas, uint8 (3, size, size).

    Areas that cut through pixels take their share of them, so any size is exact; the average is
    of sRGB values, as everywhere in this field.

    Args:
        rgba: uint8 (S, S, 4).
        size: Height and width of the result.
    """
    alpha = rgba[..., 3:] / 255
    laid = rgba[..., :3] * alpha + 255 * (1 - alpha)
    edges = np.linspace(0, len(rgba), size + 1)
    pixel = np.arange(len(rgba))
    upper = np.minimum(edges[1:, None], pixel + 1)
    overlap = np.clip(upper - np.maximum(edges[:-1, None], pixel), 0, None) * size / len(rgba)
    means = np.einsum("ih,jw,hwc->cij", overlap, overlap, laid, optimize=True)
    return np.rint(means).astype(np.uint8)
