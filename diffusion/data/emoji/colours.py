"""Names of the colours of a picture: thirteen, each with examples; the nearest one in CIELAB."""

from collections import Counter

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
SHARE = 0.18
STRIDE = 4


def colours(rgba: np.ndarray) -> list[str]:
    """Returns the names of the colours that fill more than `SHARE` of what is opaque.

    They are one to five, the most frequent first; if none fills that much, the one that fills most.

    Args:
        rgba: uint8 (H, W, 4).
    """
    pixels = rgba[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].reshape(-1, 4)
    seen = pixels[pixels[:, 3] > 127, :3]
    if len(seen) == 0:
        return ["white"]
    names = [name for name, examples in NAMES.items() for _ in examples]
    examples = np.array([rgb for of_name in NAMES.values() for rgb in of_name], dtype=np.uint8)
    nearest = np.linalg.norm(lab(seen)[:, None] - lab(examples), axis=2).argmin(1)
    shares = Counter(names[i] for i in nearest)
    order = [name for name, _ in shares.most_common()]
    return [name for name in order if shares[name] > SHARE * len(seen)] or order[:1]


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
