"""The UNet of DDPM (Ho et al. 2020), whose defaults are its CIFAR-10 network."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.layers import (
    Downsample,
    ResBlock,
    SelfAttention,
    TimeLabelEmbedding,
    Upsample,
    group_norm,
    xavier,
    zero,
)


class Stage(nn.Module):
    """A residual block, self-attention if `attend`, and twice the resolution if `upsample`."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        attend: bool,
        upsample: bool = False,
        emb_width: int,
        dropout: float,
        heads: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.block = ResBlock(channels, out_channels, emb_width, dropout, groups)
        self.attention = SelfAttention(out_channels, heads, groups) if attend else None
        self.upsample = Upsample(out_channels) if upsample else None

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, channels, H, W) and SiLU(emb) (B, E) to (B, out_channels, H', W')."""
        h = self.block(h, emb)
        h = h if self.attention is None else self.attention(h)
        return h if self.upsample is None else self.upsample(h, emb)


class UNet(nn.Module):
    """network(x_t, t, label): a UNet with the time in every residual block.

    The defaults are the 35.7 M network of DDPM for CIFAR-10 (its appendix B), parameter for
    parameter; the class embedding is ADM's (Dhariwal & Nichol 2021).

    Args:
        image_size: Height and width of the images in pixels.
        in_channels: Channels of x_t.
        out_channels: Channels of the output, 2 · in_channels to learn the variance as well;
            None for in_channels.
        channels: Channels of the first level, even and at least 4.
        multipliers: Channels of each level as multiples of `channels`; each level after the
            first has half the resolution of the one before.
        attention: Resolutions of the grid (image_size / patch, and its halves) that have
            self-attention after each residual block. The middle always has it.
        blocks: Residual blocks per level on the way down; one more on the way up.
        dropout: Probability in each residual block; the paper's CIFAR-10 model has 0.1.
        heads: Heads of the self-attention.
        num_classes: K classes for the condition `label`, whose ∅ is K; None for no labels.
        patch: Side of the pixel squares that are folded into channels at the input and unfolded
            at the output: 2 costs about a quarter of 1.
        groups: Of GroupNorm, at most; see `group_norm`.

    Attributes:
        null: The value of ∅ of each condition, {"label": num_classes} or {}.
        factor: What the sides of an image have to be multiples of.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        out_channels: int | None = None,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        attention: Sequence[int] = (16,),
        blocks: int = 2,
        dropout: float = 0.0,
        heads: int = 1,
        num_classes: int | None = None,
        patch: int = 1,
        groups: int = 32,
    ) -> None:
        super().__init__()
        if channels < 4 or channels % 2:
            raise ValueError(f"channels={channels}: expected an even number of at least 4")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"multipliers={multipliers}: expected at least one, all positive")
        for key, value in {"blocks": blocks, "patch": patch}.items():
            if value < 1:
                raise ValueError(f"{key}={value}: expected at least 1")
        self.null: dict[str, int] = {} if num_classes is None else {"label": num_classes}
        self.num_classes, self.in_channels = num_classes, in_channels
        self.patch, self.factor = patch, patch * 2 ** (len(multipliers) - 1)
        self.embedding = TimeLabelEmbedding(channels, 4 * channels, num_classes)
        self.conv_in = xavier(nn.Conv2d(in_channels * patch**2, channels, 3, padding=1))
        widths = [channels, *(channels * multiplier for multiplier in multipliers)]
        attend = attended(image_size, patch, len(multipliers), attention)
        options = {"emb_width": 4 * channels, "dropout": dropout, "heads": heads, "groups": groups}
        self._build(partial(Stage, **options), widths, attend, blocks)
        self.norm_out = group_norm(widths[1], groups)
        out_channels = in_channels if out_channels is None else out_channels
        self.conv_out = zero(nn.Conv2d(widths[1], out_channels * patch**2, 3, padding=1))

    def _build(
        self, stage: Callable[..., Stage], widths: list[int], attend: list[bool], blocks: int
    ) -> None:
        """Builds the levels; level i maps widths[i] to widths[i + 1] channels."""
        levels = list(enumerate(widths[1:]))
        last = len(levels) - 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [widths[0]]  # channels of the maps that the way down leaves behind
        for i, width in levels:
            for j in range(blocks):
                self.down.append(stage(width if j else widths[i], width, attend=attend[i]))
            if i < last:
                self.down.append(Downsample(width))
            skips += [width] * (blocks + (i < last))

        width = widths[-1]
        self.middle = nn.ModuleList([stage(width, width, attend=yes) for yes in (True, False)])

        h = width
        for i, width in reversed(levels):
            for j in range(blocks + 1):
                upsample = i > 0 and j == blocks
                self.up.append(stage(h + skips.pop(), width, attend=attend[i], upsample=upsample))
                h = width

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the raw output for noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.
            label: Classes (B,) int64 in 0 … num_classes; None for ∅ everywhere.

        Returns:
            Output (B, out_channels, H, W), exactly 0 at initialisation.
        """
        emb = F.silu(self.embedding(t, label))
        h = self.conv_in(F.pixel_unshuffle(x_t, self.patch))
        skips = [h]
        for layer in self.down:
            h = layer(h, emb)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, emb)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)


def attended(image_size: int, patch: int, levels: int, attention: Sequence[int]) -> list[bool]:
    """Returns for each level whether its resolution, image_size / patch / 2^level, is attended.

    Raises:
        ValueError: If the image does not divide into patch · 2^(levels − 1), or a value of
            `attention` is the resolution of no level.
    """
    unit = patch * 2 ** (levels - 1)
    if image_size < unit or image_size % unit:
        raise ValueError(
            f"image_size={image_size}: expected a multiple of patch·2^(levels−1) = {unit}"
        )
    sizes = [image_size // patch // 2**level for level in range(levels)]
    if unknown := [size for size in attention if size not in sizes]:
        raise ValueError(f"attention={unknown}: expected resolutions among {sizes}")
    return [size in attention for size in sizes]
