"""From a control in pixels to what is added to a network's first map."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.unet.style import zero

WIDTHS = (16, 32, 96, 256)


class Hint:
    """What a control is and how it is encoded, see `HintEncoder`.

    Args:
        channels: c of the control: 1 for edges or a silhouette, 3 for colours.
        widths: Of the stack of convolutions; empty for the last one alone.
        start: The weights of the copy before training: the base's, or for comparison "noise", the
            numbers of each of its weights in random order.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = WIDTHS,
        start: Literal["base", "noise"] = "base",
    ) -> None:
        check_counts("network.controls", channels=channels)
        if widths and min(widths) < 1:
            raise ValueError(f"network.controls.widths: {widths}; expected numbers ≥ 1")
        self.channels, self.widths = channels, widths
        self.start: Literal["base", "noise"] = start


class HintEncoder(nn.Module):
    """conv c → w₀, then w_i → w_i → w_{i+1} for each width, SiLU after each, a zero convolution.

    The last of each pair halves the resolution as often as the network's patch needs it, its first
    ones for a patch of 2 or 4; with a patch of 8 it is the paper's stack: 16, 32 (s2), 96 (s2), 256
    (s2) (Zhang et al. 2023, https://arxiv.org/abs/2302.05543, section 3.3; 512 → 64 there).
    Without widths it is one zero convolution of the folded control.

    The other weights start as N(0, 4 / fan-in) and their biases at 0, since SiLU(x) ≈ x / 2 near 0:
    the control reaches the last layer as large as it came. From PyTorch's initial weights, as the
    paper's code has them, it comes more than 1,000 times smaller, and is ignored for long.

    Args:
        hint: The control's channels, and the widths.
        out_channels: Of the network's first map.
        patch: How many pixels of a side become one position; a power of 2.

    Raises:
        ValueError: If the stack is too short for the patch.
    """

    def __init__(self, hint: Hint, out_channels: int, patch: int) -> None:
        super().__init__()
        widths, halvings = hint.widths, patch.bit_length() - 1
        if patch != 2**halvings or (widths and halvings > len(widths) - 1):
            raise ValueError(
                f"network.controls.widths: {list(widths)}; expected {halvings + 1} or more, or "
                f"none, for a network with a patch of {patch}, a power of 2"
            )
        self.fold = 1 if widths else patch
        layers = [nn.Conv2d(hint.channels, widths[0], 3, padding=1)] if widths else []
        for i, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(before, before, 3, padding=1))
            layers.append(nn.Conv2d(before, after, 3, padding=1, stride=2 if i < halvings else 1))
        for layer in layers:
            nn.init.normal_(zero(layer).weight, std=2 / layer.weight[0].numel() ** 0.5)
        self.layers = nn.ModuleList(layers)
        last = widths[-1] if widths else hint.channels * patch**2
        self.out = zero(nn.Conv2d(last, out_channels, 3, padding=1))

    def forward(self, control: Tensor) -> Tensor:
        """Maps a control (B, c, H, W) in [0, 1] to (B, out_channels, H / patch, W / patch)."""
        h = F.pixel_unshuffle(control, self.fold)
        for layer in self.layers:
            h = F.silu(layer(h))
        return self.out(h)
