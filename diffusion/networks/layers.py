"""The parts a UNet is made of, as in DDPM (Ho et al. 2020, appendix B).

Feature maps `h` are (B, C, H, W), the embedding of the time and the conditions is `emb` (B, E).
Every layer that ends a residual branch starts at zero, so that each block starts as the identity;
all others start as Xavier uniform (variance scaling with fan_avg), biases zero.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def sinusoidal(t: Tensor, dim: int) -> Tensor:
    """Embeds t as [sin(ω₀t) … sin(ω_{h−1}t), cos(ω₀t) …] with ωᵢ = 10000^(−i/(h−1)), h = dim/2.

    Args:
        t: Times (B,), of any real dtype.
        dim: Size of the embedding, even and at least 4.

    Returns:
        float32 values (B, dim) in [−1, 1].

    References:
        DDPM's variant (h − 1, sines first) of Vaswani et al. 2017, section 3.5.
    """
    half = dim // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) / (half - 1) * i)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


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


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """GroupNorm with ε = 1e-6 and `groups` groups, fewer where they would hold < 4 channels.

    The number is the largest divisor of `channels` that is at most min(groups, channels // 4):
    32 from 128 channels on, as published, and 16 for 64, 12 for 48, 1 for fewer than 8.
    """
    most = max(1, min(groups, channels // 4))
    count = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(count, channels, eps=1e-6)


class TimeLabelEmbedding(nn.Module):
    """emb = W₂ SiLU(W₁ sinusoidal(t − 1)) + label row (ADM, Dhariwal & Nichol 2021).

    Args:
        dim: Size of the sinusoidal embedding, even and at least 4.
        width: Size E of the result.
        num_classes: K classes, and the row K for ∅, which is trained like the others; None
            for a network without labels.

    Raises:
        ValueError: If `num_classes` is below 1, or a label comes without classes.
    """

    def __init__(self, dim: int, width: int, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: expected None or at least 1")
        self.dim = dim
        self.time_in = xavier(nn.Linear(dim, width))
        self.time_out = xavier(nn.Linear(width, width))
        self.label = None if num_classes is None else nn.Embedding(num_classes + 1, width)

    def forward(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns emb (B, E) of times t (B,) in 1 … T and labels (B,) in 0 … K, None for ∅."""
        # Published networks count time from 0.
        emb = sinusoidal(t - 1, self.dim).to(self.time_in.weight.dtype)
        emb = self.time_out(F.silu(self.time_in(emb)))
        if self.label is None:
            if label is not None:
                raise ValueError("label was given: expected none, the network has no num_classes")
            return emb
        return emb + (self.label.weight[-1] if label is None else self.label(label))


class ResBlock(nn.Module):
    """h ↦ shortcut(h) + conv(dropout(SiLU(GN(conv(SiLU(GN(h))) + W SiLU(emb))))).

    Args:
        channels: Of the input.
        out_channels: Of the output; the shortcut is a 1x1 convolution where they differ.
        emb_width: Size E of the embedding.
        dropout: Probability in [0, 1].
        groups: Of GroupNorm, at most.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        emb_width: int,
        dropout: float = 0.0,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.norm_in = group_norm(channels, groups)
        self.conv_in = xavier(nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb = xavier(nn.Linear(emb_width, out_channels))
        self.norm_out = group_norm(out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = (
            nn.Identity()
            if channels == out_channels
            else xavier(nn.Conv2d(channels, out_channels, 1))
        )

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, channels, H, W) and SiLU(emb) (B, E) to (B, out_channels, H, W)."""
        branch = self.conv_in(F.silu(self.norm_in(h)))
        branch = branch + self.emb(emb)[:, :, None, None]
        branch = self.conv_out(self.dropout(F.silu(self.norm_out(branch))))
        return self.shortcut(h) + branch


class SelfAttention(nn.Module):
    """h ↦ h + W softmax(QKᵀ/√d) V of GN(h), over all H·W positions (DDPM, appendix B).

    Args:
        channels: C, a multiple of `heads`.
        heads: Number of heads; each reads one slice of Q, of K and of V.
        groups: Of GroupNorm, at most.

    Raises:
        ValueError: If `channels` is not a multiple of `heads`.
    """

    def __init__(self, channels: int, heads: int = 1, groups: int = 32) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads={heads}: expected a divisor of the {channels} channels")
        self.heads = heads
        self.norm = group_norm(channels, groups)
        self.qkv = xavier(nn.Linear(channels, 3 * channels), parts=3)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to the same shape."""
        tokens = self.norm(h).flatten(2).transpose(1, 2)  # (B, H·W, C), a view if channels_last
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, H·W, C/heads)
        values = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return h + self.out(values).transpose(1, 2).unflatten(2, h.shape[2:])


class Downsample(nn.Module):
    """Halves H and W by a 3x3 convolution of stride 2 with TensorFlow's SAME padding.

    `emb` is unused: it is there for layers that resample inside a residual block.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = xavier(nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, C, H, W), H and W even, to (B, C, H/2, W/2)."""
        # SAME pads an even side at its end only; padding=1 would shift published weights.
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles H and W by repeating each position, then a 3x3 convolution; `emb` is unused."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = xavier(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
