"""The classifier of noisy images of ADM (Dhariwal & Nichol 2021), the encoder half of a UNet."""

from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import ImageTower
from diffusion.networks.unet.attention import AttentionPool
from diffusion.networks.unet.encoder import Encoder
from diffusion.networks.unet.style import Family, QKVOrder, Resample, zero


class MeanPool(nn.Module):
    """h ↦ W mean(h) over all positions, with W = 0 at first (ADM's code, pool "adaptive")."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.out = zero(nn.Linear(channels, out_channels))

    def forward(self, h: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to (B, out_channels)."""
        return self.out(h.mean(dim=(2, 3)))


class ClassifierNetwork(Encoder, ImageTower):
    """network(x_t, t): the logits of p(y | x_t), from the way down and the middle of a UNet.

    The defaults are the 42.6 M classifier of ADM for ImageNet 128 (EncoderUNetModel of its code,
    guided-diffusion); those for 64, 256 and 512 have multipliers (1, 2, 3, 4) with blocks=4,
    (1, 1, 2, 2, 4, 4), and (0.5, 1, 1, 2, 2, 4, 4).

    Args:
        image_size: As for `Encoder`, like all that are not listed here.
        num_classes: K, the number of logits.
        pool: From positions to one vector: "attention" (CLIP's, for one `image_size` only) or
            "mean".
        qkv_order: Of the attention; published classifiers have "heads-qkv".

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 128,
        in_channels: int = 3,
        num_classes: int = 1000,
        multipliers: Sequence[int | float] = (1, 1, 2, 3, 4),
        attention: Sequence[int] = (32, 16, 8),
        head_width: int = 64,
        pool: Literal["attention", "mean"] = "attention",
        scale_shift: bool = True,
        resample: Resample = "block",
        qkv_order: QKVOrder = "heads-qkv",
        family: Family = "openai",
        **kwargs: Any,
    ) -> None:
        check_counts("network", num_classes=num_classes)
        super().__init__(
            image_size=image_size,
            in_channels=in_channels,
            multipliers=multipliers,
            attention=attention,
            head_width=head_width,
            scale_shift=scale_shift,
            resample=resample,
            qkv_order=qkv_order,
            family=family,
            num_classes=None,
            null_class=False,
            streams=(),
            **kwargs,
        )
        self.num_classes = self.out_channels = num_classes
        self.fixed = pool == "attention"  # its positions belong to one size
        width, size = self.widths[-1], image_size // self.factor
        self.state_width, self.norm_out = width, self.style.norm(width)
        self.pool = (
            AttentionPool(size, width, num_classes, self.style)
            if self.fixed
            else MeanPool(width, num_classes)
        )

    def look(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits (B, num_classes) of noisy images, and what they are pooled from.

        See `ImageTower`; the times t are in 1 … T, integers or floats.
        """
        self.check_size(x_t)
        h, _ = self.encode(x_t, F.silu(self.embedding(t)))
        h = F.silu(self.norm_out(h))
        return self.pool(h), h.flatten(2).transpose(1, 2)
