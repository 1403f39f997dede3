"""What all layers of a UNet share: normalisation and initial weights.

Feature maps `h` are (B, C, H, W), the embedding of the time and the conditions is `emb` (B, E).
Every layer that ends a residual branch starts at zero, so that each block starts as the identity;
how the others start is up to the family.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import nn

from diffusion.common.validate import check_counts
from diffusion.networks.half_precision import GroupNorm

Family = Literal["ddpm", "openai"]
QKVOrder = Literal["qkv-heads", "heads-qkv"]
Resample = Literal["conv", "block"]
Route = Literal["join", "cross"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def xavier(layer: Layer, parts: int = 1) -> Layer:
    """Starts `parts` layers that share one weight each as Xavier uniform, their biases at zero."""
    zero(layer)
    for weight in layer.weight.chunk(parts):
        nn.init.xavier_uniform_(weight)
    return layer


def zero(layer: Layer) -> Layer:
    """Starts a layer at zero (the paper's initial scale of 1e-10, without its noise)."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@dataclass(frozen=True)
class TokenStyle:
    """What attention has to know of a `Stream`; `width` is D, the size of a token's state."""

    name: str
    width: int
    route: Route


@dataclass(frozen=True)
class Style:
    """What the layers of one network have in common: E, and what `Encoder` explains."""

    emb_width: int
    dropout: float = 0.0
    groups: int = 32
    family: Family = "ddpm"
    scale_shift: bool = False
    resample: Resample = "conv"
    heads: int = 1
    head_width: int | None = None
    qkv_order: QKVOrder = "qkv-heads"
    streams: tuple[TokenStyle, ...] = ()
    self_attention: bool = True

    def norm(self, channels: int) -> GroupNorm:
        """Returns GroupNorm with `groups` groups, fewer where they would hold too few channels.

        The number is the largest divisor of `channels` that is at most min(groups, channels // 4):
        32 from 128 channels on, as published, and 16 for 64, 12 for 48, 1 for fewer than 8.
        "openai" has channels // 2 there, because its published networks have 64 channels in 32
        groups. ε is 1e-6 (TensorFlow's) for "ddpm" and 1e-5 (PyTorch's) for "openai".
        """
        check_counts("network", groups=self.groups)
        least, eps = (4, 1e-6) if self.family == "ddpm" else (2, 1e-5)
        most = max(1, min(self.groups, channels // least))
        count = next(n for n in range(most, 0, -1) if channels % n == 0)
        return GroupNorm(count, channels, eps=eps)

    def start(self, layer: Layer, parts: int = 1) -> Layer:
        """Starts a layer as the family does: "ddpm" by `xavier`, "openai" as PyTorch did."""
        return xavier(layer, parts) if self.family == "ddpm" else layer
