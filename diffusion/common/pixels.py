"""From the model's numbers to the 256 levels of an image file."""

import torch
from torch import Tensor


def quantize(x: Tensor) -> Tensor:
    """Returns ⌊min(127.5·x + 128, 255)⌋ as uint8, x clamped to [−1, 1] first.

    This is the rule of EDM's generate.py (Karras et al. 2022). Real and generated images both pass
    through it, so that neither side differs by its rounding.

    Args:
        x: Images of any shape, floating point.
    """
    return (x.float().clamp(-1, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
