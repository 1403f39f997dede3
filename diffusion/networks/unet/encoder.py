"""The encoder half of a UNet: the way down and the middle."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.blocks import ResBlock, downsample, upsample
from diffusion.networks.unet.style import Style, TimeLabelEmbedding
from diffusion.networks.unet.token_attention import Source


class Stage(nn.Module):
    """A residual block, self-attention if `attend`, and twice the resolution if `double`."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        style: Style,
        *,
        attend: bool,
        double: bool = False,
    ) -> None:
        super().__init__()
        self.block = ResBlock(channels, out_channels, style)
        self.attention = SelfAttention(out_channels, style) if attend else None
        self.upsample = upsample(out_channels, style) if double else None

    def forward(
        self, h: Tensor, emb: Tensor, sources: Mapping[str, Source] | None = None
    ) -> Tensor:
        """Maps h (B, channels, H, W) and SiLU(emb) (B, E) to (B, out_channels, H', W')."""
        h = self.block(h, emb)
        h = h if self.attention is None else self.attention(h, sources)
        return h if self.upsample is None else self.upsample(h, emb)


class Encoder(Network):
    """From noisy images to the feature maps of every stage down to the middle.

    Args:
        image_size: Height and width of the images in pixels.
        in_channels: Channels of x_t.
        levels: Channels of each level.
        attention: Resolutions that have self-attention.
        blocks: Residual blocks per level.
        embedding: Of the time and the label.
        patch: Side of the pixel squares that are folded into channels.
        style: What the layers have in common.
        checkpointing: Whether training computes activations again instead of keeping them.

    Attributes:
        widths: Channels of the first map and of each level.
        attend: Whether each level has self-attention.
        skips: Channels of the maps that the way down leaves behind.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        levels: Sequence[int],
        attention: Sequence[int],
        blocks: int,
        embedding: TimeLabelEmbedding,
        patch: int,
        style: Style,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        check_counts("network", blocks=blocks, patch=patch, in_channels=in_channels)
        self.widths = [levels[0], *levels]
        self.attend = attended(image_size, patch, len(levels), attention)
        self.image_size, self.in_channels = image_size, in_channels
        self.patch, self.factor = patch, patch * 2 ** (len(levels) - 1)
        self.blocks, self.style = blocks, style
        self.checkpointing = checkpointing
        self.embedding = embedding
        self.conv_in = style.start(nn.Conv2d(in_channels * patch**2, levels[0], 3, padding=1))
        self.down = nn.ModuleList()
        self.skips = [levels[0]]
        for i, width in enumerate(levels):
            for j in range(blocks):
                before = width if j else self.widths[i]
                self.down.append(Stage(before, width, style, attend=self.attend[i]))
            if i < len(levels) - 1:
                self.down.append(downsample(width, style))
            self.skips += [width] * (blocks + (i < len(levels) - 1))
        self.middle = nn.ModuleList(
            [Stage(levels[-1], levels[-1], style, attend=attend) for attend in (True, False)]
        )

    def encode(
        self, x_t: Tensor, emb: Tensor, sources: Mapping[str, Source] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns h after the middle, and the maps left behind on the way down.

        Args:
            x_t: Images (B, in_channels, H, W).
            emb: SiLU of the embedding, (B, E).
            sources: The states of streams of tokens, where the style has some.
        """
        h = self.conv_in(F.pixel_unshuffle(x_t, self.patch))
        skips = [h]
        for layer in self.down:
            h = self.run(layer, h, emb, sources)
            skips.append(h)
        for layer in self.middle:
            h = self.run(layer, h, emb, sources)
        return h, skips

    def run(
        self, layer: nn.Module, h: Tensor, emb: Tensor, sources: Mapping[str, Source] | None
    ) -> Tensor:
        """Returns the layer's result, keeping only inputs for the gradient if `checkpointing`."""
        inputs = (h, emb, sources) if isinstance(layer, Stage) else (h, emb)
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)  # pyright: ignore
        return layer(*inputs)


def level_widths(channels: int, multipliers: Sequence[int | float]) -> list[int]:
    """Returns the channels of each level.

    Raises:
        ValueError: If `channels` is odd or below 4, or a level has no whole number of channels.
    """
    if channels < 4 or channels % 2:
        raise ValueError(f"network.channels: {channels}; expected an even number of at least 4")
    if not multipliers or min(multipliers) <= 0:
        raise ValueError(f"network.multipliers: {multipliers}; expected at least one, all above 0")
    widths = [channels * multiplier for multiplier in multipliers]
    if any(width != int(width) for width in widths):
        raise ValueError(
            f"network.multipliers: {multipliers}; expected whole multiples of 1 / {channels}"
        )
    return [int(width) for width in widths]


def attended(image_size: int, patch: int, levels: int, attention: Sequence[int]) -> list[bool]:
    """Returns for each level whether its resolution, image_size / patch / 2^level, is attended.

    Raises:
        ValueError: If the image does not divide into patch · 2^(levels − 1), or a value of
            `attention` is the resolution of no level.
    """
    unit = patch * 2 ** (levels - 1)
    if image_size < unit or image_size % unit:
        raise ValueError(
            f"network.image_size: {image_size}; expected a multiple of patch·2^(levels−1) = {unit}"
        )
    sizes = [image_size // patch // 2**level for level in range(levels)]
    if unknown := [size for size in attention if size not in sizes]:
        raise ValueError(f"network.attention: {unknown}; expected resolutions among {sizes}")
    return [size in attention for size in sizes]
