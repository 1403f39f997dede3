"""The blocks of a UNet: residual, and to half or twice the resolution.

All are called as block(h, emb), with h (B, C, H, W) and SiLU of the embedding (B, E).
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.unet.style import Style, zero

Way = Literal["down", "up"]


def half_or_double(h: Tensor, way: Way) -> Tensor:
    """Returns the means of squares of 2x2 positions ("down"), or each position 2x2 times ("up")."""
    if way == "down":
        return F.avg_pool2d(h, 2)
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """h ↦ shortcut(h) + conv(dropout(SiLU(GN(conv(SiLU(GN(h))) + W SiLU(emb))))).

    With `scale_shift` the embedding acts after the second norm, GN(…)(1 + scale) + shift with
    (scale, shift) = W SiLU(emb) (ADM, section 3.1, AdaGN); nothing is added before it then.

    Args:
        channels: Of the input.
        out_channels: Of the output; the shortcut is a 1x1 convolution where they differ.
        style: What the network's layers have in common.
        resize: "down" or "up" halves or doubles the resolution on both branches, on this one
            before the first convolution (BigGAN, Brock et al. 2019, appendix B); None keeps it.
    """

    def __init__(
        self, channels: int, out_channels: int, style: Style, resize: Way | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = style.scale_shift
        self.resize: Way | None = resize
        parts = 1 + style.scale_shift
        self.norm_in = style.norm(channels)
        self.conv_in = style.start(nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb = style.start(nn.Linear(style.emb_width, parts * out_channels), parts)
        self.norm_out = style.norm(out_channels)
        self.dropout = nn.Dropout(style.dropout)
        self.conv_out = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Identity()
        if channels != out_channels:
            self.shortcut = style.start(nn.Conv2d(channels, out_channels, 1))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, channels, H, W) and SiLU(emb) (B, E) to (B, out_channels, H', W')."""
        branch = F.silu(self.norm_in(h))
        if self.resize is not None:
            branch, h = half_or_double(branch, self.resize), half_or_double(h, self.resize)
        branch, emb = self.conv_in(branch), self.emb(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            branch = self.norm_out(branch) * (1 + scale) + shift
        else:
            branch = self.norm_out(branch + emb)
        return self.shortcut(h) + self.conv_out(self.dropout(F.silu(branch)))


class Downsample(nn.Module):
    """Halves H and W by a 3x3 convolution of stride 2; `emb` is unused.

    "ddpm" has TensorFlow's SAME padding, which pads an even side at its end only; "openai" pads
    all sides by 1. The other one would shift published weights by half a position.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.pad = (0, 1, 0, 1) if style.family == "ddpm" else (1, 1, 1, 1)
        self.conv = style.start(nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, C, H, W), H and W even, to (B, C, H/2, W/2)."""
        return self.conv(F.pad(h, self.pad))


class Upsample(nn.Module):
    """Doubles H and W by repeating each position, then a 3x3 convolution; `emb` is unused."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.conv = style.start(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(half_or_double(h, "up"))


def resampling(channels: int, style: Style, way: Way) -> nn.Module:
    """Returns the layer between two levels on the way down or up."""
    if style.resample == "block":
        return ResBlock(channels, channels, style, resize=way)
    return (Downsample if way == "down" else Upsample)(channels, style)
