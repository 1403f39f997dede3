"""The classifier of noisy images of ADM (Dhariwal & Nichol 2021), the encoder half of a UNet."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.unet.attention import AttentionPool
from diffusion.networks.unet.encoder import Encoder, level_widths
from diffusion.networks.unet.style import (
    Family,
    QKVOrder,
    Resample,
    Style,
    TimeLabelEmbedding,
    zero,
)


class MeanPool(nn.Module):
    """h ↦ W mean(h) over all positions, with W = 0 at first (ADM's code, pool "adaptive")."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.out = zero(nn.Linear(channels, out_channels))

    def forward(self, h: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to (B, out_channels)."""
        return self.out(h.mean(dim=(2, 3)))


class ClassifierNetwork(Encoder):
    """network(x_t, t): the logits of p(y | x_t), from the way down and the middle of a UNet.

    The defaults are the 42.6 M classifier of ADM for ImageNet 128 (EncoderUNetModel of its code,
    guided-diffusion); those for 64, 256 and 512 have multipliers (1, 2, 3, 4) with blocks=4,
    (1, 1, 2, 2, 4, 4), and (0.5, 1, 1, 2, 2, 4, 4).

    Args:
        image_size: Height and width of the images in pixels.
        in_channels: Channels of x_t.
        num_classes: K, the number of logits.
        channels: What `multipliers` multiply, even and at least 4.
        multipliers: Channels of each level as multiples of `channels`.
        attention: Resolutions of the grid (image_size / patch, and its halves) that have
            self-attention after each residual block. The middle always has it.
        blocks: Residual blocks per level.
        head_width: Channels per head of all attention.
        pool: From positions to one vector: "attention" (CLIP's, for one `image_size` only) or
            "mean".
        dropout: Probability in each residual block.
        scale_shift: As in `UNet`, like the following ones.
        resample: How the resolution is halved.
        qkv_order: Of the attention; published classifiers have "heads-qkv".
        family: Whose details.
        time_scale: What t − 1 is multiplied by.
        patch: Side of the pixel squares that are folded into channels at the input.
        groups: Of GroupNorm, at most.
        checkpointing: Whether training computes activations twice instead of keeping them.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 128,
        in_channels: int = 3,
        num_classes: int = 1000,
        channels: int = 128,
        multipliers: Sequence[int | float] = (1, 1, 2, 3, 4),
        attention: Sequence[int] = (32, 16, 8),
        blocks: int = 2,
        head_width: int = 64,
        pool: Literal["attention", "mean"] = "attention",
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample: Resample = "block",
        qkv_order: QKVOrder = "heads-qkv",
        family: Family = "openai",
        time_scale: float = 1.0,
        patch: int = 1,
        groups: int = 32,
        checkpointing: bool = False,
    ) -> None:
        check_counts("network", num_classes=num_classes)
        levels = level_widths(channels, multipliers)
        style = Style(
            emb_width=4 * channels,
            dropout=dropout,
            groups=groups,
            family=family,
            scale_shift=scale_shift,
            resample=resample,
            head_width=head_width,
            qkv_order=qkv_order,
        )
        super().__init__(
            image_size,
            in_channels,
            levels,
            attention,
            blocks,
            TimeLabelEmbedding(channels, 4 * channels, time_scale=time_scale, family=family),
            patch,
            style,
            checkpointing,
        )
        self.num_classes = self.out_channels = num_classes
        self.fixed = pool == "attention"  # its positions belong to one size
        width = self.widths[-1]
        self.norm_out = style.norm(width)
        self.pool = (
            AttentionPool(image_size // self.factor, width, num_classes, style)
            if self.fixed
            else MeanPool(width, num_classes)
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the logits (B, num_classes) of noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.

        Raises:
            ValueError: If attention is to pool images that are not of `image_size`.
        """
        if self.fixed and x_t.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"network.image_size: {self.image_size}; expected {tuple(x_t.shape[2:])}, as the "
                "images are, for attention pooling"
            )
        h, _ = self.encode(x_t, F.silu(self.embedding(t)))
        return self.pool(F.silu(self.norm_out(h)))
