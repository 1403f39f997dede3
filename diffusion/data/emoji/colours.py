"""The colours of a picture by name, thirteen of them."""

from collections import Counter

import numpy as np

from diffusion.common.palette import NAMES, nearest_names

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
    names = list(NAMES)
    shares = Counter(names[i] for i in nearest_names(seen))
    order = [name for name, _ in shares.most_common()]
    return [name for name in order if shares[name] > SHARE * len(seen)] or order[:1]
