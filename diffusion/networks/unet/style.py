"""What all layers of a UNet share: normalisation, initial weights, and the embedding.

Feature maps `h` are (B, C, H, W), the embedding of the time and the conditions is `emb` (B, E).
Every layer that ends a residual branch starts at zero, so that each block starts as the identity;
how the others start is up to the family.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.label import Label

Family = Literal["ddpm", "openai"]
QKVOrder = Literal["qkv-heads", "heads-qkv"]
Resample = Literal["conv", "block"]
Route = Literal["join", "cross"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def sinusoidal(t: Tensor, dim: int, family: Family = "ddpm") -> Tensor:
    """Embeds t by the sines and cosines of ωᵢt, i = 0 … h − 1, h = dim/2.

    "ddpm" is [sin(ω₀t) …, cos(ω₀t) …] with ωᵢ = 10000^(−i/(h−1)), so that the last ω is 10⁻⁴;
    "openai" is [cos(ω₀t) …, sin(ω₀t) …] with ωᵢ = 10000^(−i/h).

    Args:
        t: Times (B,), of any real dtype.
        dim: Size of the embedding, even and at least 4.
        family: Whose variant.

    Returns:
        float32 values (B, dim) in [−1, 1].

    References:
        Two readings of Vaswani et al. 2017, section 3.5: that of DDPM's code, and that of Improved
        DDPM's and ADM's.
    """
    half = dim // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    last = half - 1 if family == "ddpm" else half
    angles = t.float()[:, None] * torch.exp(-math.log(10000) / last * i)
    waves = [angles.sin(), angles.cos()]
    return torch.cat(waves if family == "ddpm" else waves[::-1], dim=1)


def xavier(layer: Layer, parts: int = 1) -> Layer:
    """Starts `parts` layers that share one weight each as Xavier uniform, their biases at zero."""
    for weight in layer.weight.chunk(parts):
        nn.init.xavier_uniform_(weight)
    return zero_bias(layer)


def zero(layer: Layer) -> Layer:
    """Starts a layer at zero (the paper's initial scale of 1e-10, without its noise)."""
    nn.init.zeros_(layer.weight)
    return zero_bias(layer)


def zero_bias(layer: Layer) -> Layer:
    """Starts the bias at zero, if there is one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def start(layer: Layer, family: Family, parts: int = 1) -> Layer:
    """Starts a layer as its family does: "ddpm" by `xavier`, "openai" as PyTorch started it."""
    return xavier(layer, parts) if family == "ddpm" else layer


def group_norm(channels: int, groups: int = 32, family: Family = "ddpm") -> nn.GroupNorm:
    """GroupNorm with `groups` groups, fewer where they would hold too few channels.

    The number is the largest divisor of `channels` that is at most min(groups, channels // 4):
    32 from 128 channels on, as published, and 16 for 64, 12 for 48, 1 for fewer than 8. "openai"
    has channels // 2 there, because its published networks have 64 channels in 32 groups. ε is
    1e-6 (TensorFlow's) for "ddpm" and 1e-5 (PyTorch's) for "openai".
    """
    check_counts("network", groups=groups)
    least, eps = (4, 1e-6) if family == "ddpm" else (2, 1e-5)
    most = max(1, min(groups, channels // least))
    count = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(count, channels, eps=eps)


@dataclass(frozen=True)
class TokenStyle:
    """A stream of tokens, as a layer of attention has to know it; see `Stream`.

    Attributes:
        name: Of the stream.
        width: Size D of a token's state.
        route: How attention reads them.
    """

    name: str
    width: int
    route: Route


@dataclass(frozen=True)
class Style:
    """What the layers of one network have in common; `UNet` explains each option.

    Attributes:
        emb_width: Size E of the embedding.
        dropout: Probability in each residual block.
        groups: Of GroupNorm, at most.
        family: Whose details.
        scale_shift: Whether the embedding scales and shifts, instead of being added.
        resample: What changes the resolution between levels.
        heads: Heads of the attention, if `head_width` is None.
        head_width: Channels per head.
        qkv_order: How the rows of the weight that makes Q, K and V are ordered.
        streams: The streams of tokens that attention reads too.
    """

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

    def norm(self, channels: int) -> nn.GroupNorm:
        """GroupNorm as the family has it."""
        return group_norm(channels, self.groups, self.family)

    def start(self, layer: Layer, parts: int = 1) -> Layer:
        """Starts a layer as the family does."""
        return start(layer, self.family, parts)


class TimeLabelEmbedding(nn.Module):
    """emb = W₂ SiLU(W₁ sinusoidal(c (t − 1))) + label row (ADM, Dhariwal & Nichol 2021).

    Args:
        dim: Size of the sinusoidal embedding, even and at least 4.
        width: Size E of the result.
        num_classes: K classes; None for a network without labels.
        null_class: Whether there is a row K for ∅, which is trained like the others.
        time_scale: c.
        family: Whose sinusoids and initial weights.

    Raises:
        ValueError: If `num_classes` is below 1, or a label comes without classes or is missing
            where there is no ∅.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        num_classes: int | None = None,
        null_class: bool = True,
        time_scale: float = 1.0,
        family: Family = "ddpm",
    ) -> None:
        super().__init__()
        self.dim, self.time_scale = dim, time_scale
        self.family: Family = family
        self.time_in = start(nn.Linear(dim, width), family)
        self.time_out = start(nn.Linear(width, width), family)
        self.label = None if num_classes is None else Label(num_classes, width, null_class)

    @property
    def conditioners(self) -> tuple[Label, ...]:
        """The label's, if there are classes."""
        return () if self.label is None else (self.label,)

    def forward(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns emb (B, E) of times t (B,) in 1 … T and labels (B,) in 0 … K, None for ∅."""
        # Published networks count time from 0.
        emb = sinusoidal(self.time_scale * (t - 1), self.dim, self.family)
        emb = self.time_out(F.silu(self.time_in(emb.to(self.time_in.weight.dtype))))
        if self.label is None:
            if label is not None:
                raise ValueError("label: given; expected none, as the network has no num_classes")
            return emb
        return emb + self.label(label)
