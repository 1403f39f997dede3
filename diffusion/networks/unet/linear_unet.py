"""The UNet of the package denoising-diffusion-pytorch: linear attention and RMS norms.

It differs from `UNet` in what a checkpoint cannot be told without: norms after the convolutions,
over the channels of one position; the embedding in the first of a block's two halves; linear
attention (Shen et al. 2018, https://arxiv.org/abs/1812.01243) at every level but the chosen ones;
learned keys and values in all attention; squares of 2x2 pixels folded into channels on the way
down; two skips a level; and the first map of all is read again at the end.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.embedding import sinusoidal
from diffusion.networks.half_precision import attend


class RMSNorm(nn.Module):
    """h ↦ g √C h / ‖h‖ over the C channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to the same shape."""
        return F.normalize(h, dim=1) * self.g * h.shape[1] ** 0.5


class Half(nn.Module):
    """h ↦ dropout(SiLU(RMS(conv(h)) (1 + scale) + shift)), half of a residual block."""

    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm = RMSNorm(out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, h: Tensor, scale: Tensor | float = 0.0, shift: Tensor | float = 0.0
    ) -> Tensor:
        """Maps h (B, C, H, W) to (B, out_channels, H, W)."""
        return self.dropout(F.silu(self.norm(self.conv(h)) * (1 + scale) + shift))


class ResidualBlock(nn.Module):
    """h ↦ shortcut(h) + half(half(h; W SiLU(emb)))."""

    def __init__(self, channels: int, out_channels: int, emb_width: int, dropout: float) -> None:
        super().__init__()
        self.emb = nn.Linear(emb_width, 2 * out_channels)
        self.first = Half(channels, out_channels, dropout)
        self.second = Half(out_channels, out_channels, 0.0)
        same = channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, C, H, W) and SiLU(emb) (B, E) to (B, out_channels, H, W)."""
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
        return self.shortcut(h) + self.second(self.first(h, scale, shift))


class Attention(nn.Module):
    """h ↦ h + W attend(Q, [K₀ K], [V₀ V]) of RMS(h), with learned K₀ and V₀.

    Full attention is softmax(QKᵀ/√d) V. Linear attention normalises Q over its d channels and K
    over the positions, and so multiplies K and V first: Q (softmax(K)ᵀ V) / √d.

    Args:
        channels: C.
        heads: Number of heads.
        width: d, channels of each head.
        learned: Number of learned keys and values.
        full: Whether it is not linear.
    """

    def __init__(self, channels: int, heads: int, width: int, learned: int, full: bool) -> None:
        super().__init__()
        self.heads, self.full = heads, full
        self.norm = RMSNorm(channels)
        rows = (learned, width) if full else (width, learned)
        self.learned = nn.Parameter(torch.randn(2, heads, *rows))
        self.qkv = nn.Conv2d(channels, 3 * heads * width, 1, bias=False)
        self.out = nn.Conv2d(heads * width, channels, 1)
        self.norm_out = nn.Identity() if full else RMSNorm(channels)

    def forward(self, h: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to the same shape."""
        qkv = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.transpose(3, 4).unbind(1)  # (B, heads, H·W, d) each
        learned = self.learned if self.full else self.learned.transpose(2, 3)
        k_0, v_0 = learned.unsqueeze(1).expand(-1, len(h), -1, -1, -1)
        k, v = torch.cat([k_0, k], dim=2), torch.cat([v_0, v], dim=2)
        if self.full:
            values = attend(q, k, v)
        else:
            context = k.softmax(2).transpose(2, 3) @ v  # (B, heads, d, d)
            values = q.softmax(3) @ context / q.shape[3] ** 0.5
        values = values.transpose(2, 3).flatten(1, 2).unflatten(2, h.shape[2:])
        return h + self.norm_out(self.out(values))


class Level(nn.Module):
    """Two residual blocks, attention, and what leads to the next level."""

    def __init__(
        self, first: ResidualBlock, second: ResidualBlock, attention: Attention, onward: nn.Module
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.attention, self.onward = attention, onward


class LinearUNet(Network):
    """network(x_t, t): see above. Without labels.

    Args:
        in_channels: Channels of x_t.
        out_channels: Of the output, 2 · in_channels to learn the variance as well; None for
            in_channels.
        channels: What `multipliers` multiply, even and at least 4.
        first: Channels of the first map; None for `channels`.
        multipliers: Channels behind each level.
        heads: Heads of the attention of each level.
        head_widths: Channels of each head, for each level.
        full: Which levels have full attention; the middle has it, with the last level's heads.
        learned: Learned keys and values of every attention.
        dropout: Probability in each residual block.

    Raises:
        ValueError: If the lists have not one value a level.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        channels: int = 64,
        first: int | None = None,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        heads: Sequence[int] = (4, 4, 4, 4),
        head_widths: Sequence[int] = (32, 32, 32, 32),
        full: Sequence[bool] = (False, False, False, True),
        learned: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts("network", in_channels=in_channels, out_channels=out_channels)
        check_counts("network", first=first, channels=channels)
        check_counts("network", least=0, learned=learned)
        for key, values in {"heads": heads, "head_widths": head_widths, "full": full}.items():
            if len(values) != len(multipliers):
                raise ValueError(
                    f"network.{key}: {values}; expected {len(multipliers)}, one a level"
                )
        self.in_channels, self.channels = in_channels, channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.factor = 2 ** (len(multipliers) - 1)
        widths = [channels if first is None else first, *(channels * m for m in multipliers)]
        width, last = 4 * channels, len(multipliers) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[0], 7, padding=3)
        self.time_in, self.time_out = nn.Linear(channels, width), nn.Linear(width, width)

        def level(joined: int, a: int, i: int, whole: bool, onward: nn.Module) -> Level:
            first, second = (ResidualBlock(joined, a, width, dropout) for _ in range(2))
            attention = Attention(a, heads[i], head_widths[i], learned, whole)
            return Level(first, second, attention, onward)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(pairwise(widths)):
            onward = nn.Conv2d(a, b, 3, padding=1) if i == last else nn.Conv2d(4 * a, b, 1)
            self.down.append(level(a, a, i, full[i], onward))
            onward = nn.Conv2d(b, a, 3, padding=1)
            self.up.insert(0, level(a + b, b, i, full[i], onward))
        self.middle = level(widths[-1], widths[-1], last, True, nn.Identity())
        self.block_out = ResidualBlock(2 * widths[0], widths[0], width, dropout)
        self.conv_out = nn.Conv2d(widths[0], self.out_channels, 1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the raw output (B, out_channels, H, W) for noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.
        """
        emb = sinusoidal(t - 1, self.channels).to(self.time_in.weight.dtype)
        emb = F.silu(self.time_out(F.gelu(self.time_in(emb))))
        h = first = self.conv_in(x_t)
        skips: list[Tensor] = []
        level: Any
        for i, level in enumerate(self.down):
            h = level.first(h, emb)
            skips.append(h)
            h = level.attention(level.second(h, emb))
            skips.append(h)
            h = level.onward(h if i == len(self.down) - 1 else F.pixel_unshuffle(h, 2))
        middle = self.middle
        h = middle.second(middle.attention(middle.first(h, emb)), emb)
        for i, level in enumerate(self.up):
            h = level.first(torch.cat([h, skips.pop()], dim=1), emb)
            h = level.attention(level.second(torch.cat([h, skips.pop()], dim=1), emb))
            last = i == len(self.up) - 1
            h = level.onward(h if last else F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(self.block_out(torch.cat([h, first], dim=1), emb))
