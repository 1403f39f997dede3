"""Palettes of colours by name, and the nearest in CIELAB of a small one with examples."""

import re

import numpy as np

NAMES = {
    "black": [(0, 0, 0)],
    "gray": [(128, 128, 128)],
    "white": [(255, 255, 255)],
    "red": [(215, 40, 40)],
    "orange": [(240, 135, 30)],
    "yellow": [(255, 210, 55)],
    "green": [(80, 160, 60), (170, 205, 50), (0, 165, 140)],
    "light blue": [(115, 190, 240)],
    "blue": [(45, 90, 190), (55, 130, 200)],
    "purple": [(135, 75, 180)],
    "pink": [(245, 145, 185)],
    "brown": [(125, 80, 50)],
    "beige": [(232, 200, 165)],
}
# Colours of CSS, of which no two are less than 25 apart in CIELAB (CIE 1976).
CSS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "maroon": (128, 0, 0),
    "chocolate": (210, 105, 30),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "khaki": (240, 230, 140),
    "olive": (128, 128, 0),
    "green": (0, 128, 0),
    "lime": (0, 255, 0),
    "pale green": (152, 251, 152),
    "teal": (0, 128, 128),
    "cyan": (0, 255, 255),
    "sky blue": (135, 206, 235),
    "steel blue": (70, 130, 180),
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "purple": (128, 0, 128),
    "magenta": (255, 0, 255),
    "violet": (238, 130, 238),
    "pink": (255, 192, 203),
    "tan": (210, 180, 140),
}
WORDS = re.compile(rf"\b({'|'.join(sorted(NAMES, key=len, reverse=True))})\b")
EXAMPLES = np.array([rgb for of_name in NAMES.values() for rgb in of_name], dtype=np.uint8)
OF_EXAMPLE = np.repeat(np.arange(len(NAMES)), [len(of_name) for of_name in NAMES.values()])


def named_colours(text: str) -> set[str]:
    """Returns which of `NAMES` a text names; "light blue" is not also "blue"."""
    return set(WORDS.findall(text.lower().replace("grey", "gray")))


def nearest_names(rgb: np.ndarray) -> np.ndarray:
    """Returns the number in `NAMES` of the colour nearest to each of uint8 (N, 3), (N,)."""
    distances = np.linalg.norm(lab(rgb)[:, None] - lab(EXAMPLES), axis=2)
    return OF_EXAMPLE[distances.argmin(1)]


def lab(rgb: np.ndarray) -> np.ndarray:
    """Returns CIELAB (D65) of sRGB values, uint8 (N, 3) to float64 (N, 3)."""
    v = rgb / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = ((linear @ to_xyz.T) / to_xyz.sum(1)).T
    fx, fy, fz = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=1)
