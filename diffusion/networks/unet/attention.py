"""Attention of the positions of a feature map to each other and to tokens, and pooling by it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffusion.networks.half_precision import attend
from diffusion.networks.unet.style import QKVOrder, Style, zero
from diffusion.networks.unet.token_attention import Source, TokenAttention


def heads_of(channels: int, heads: int, head_width: int | None) -> int:
    """Returns the number of heads: `heads`, or as many as have `head_width` channels each.

    Raises:
        ValueError: If the channels do not divide.
    """
    key, size = ("heads", heads) if head_width is None else ("head_width", head_width)
    if size < 1 or channels % size:
        raise ValueError(f"network.{key}: {size}; expected a divisor of the {channels} channels")
    return heads if head_width is None else channels // head_width


def split_heads(qkv: Tensor, heads: int, order: QKVOrder) -> tuple[Tensor, Tensor, Tensor]:
    """Returns Q, K and V, each (B, heads, N, C / heads), of (B, N, 3C).

    Args:
        qkv: What the joint weight made of N tokens.
        heads: Number of heads.
        order: "qkv-heads": all of Q first, then K, then V, each with one slice per head;
            "heads-qkv": one slice per head, each with its q, k and v.
    """
    if order == "qkv-heads":
        split = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    else:
        split = qkv.unflatten(2, (heads, 3, -1)).permute(3, 0, 2, 1, 4)
    return split[0], split[1], split[2]


class SelfAttention(nn.Module):
    """h ↦ h + W softmax(QKᵀ/√d) V of GN(h), over all H·W positions (DDPM, appendix B).

    Where the style has streams of tokens, the positions also read those; see `Stream`.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.heads = heads_of(channels, style.heads, style.head_width)
        self.qkv_order: QKVOrder = style.qkv_order
        self.norm = style.norm(channels)
        self.qkv = style.start(nn.Linear(channels, 3 * channels), parts=3)
        self.tokens = TokenAttention(channels, self.heads, style) if style.streams else None
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, h: Tensor, sources: Mapping[str, Source] | None = None) -> Tensor:
        """Maps h (B, C, H, W) to the same shape, with the streams' states."""
        tokens = self.norm(h).flatten(2).transpose(1, 2)  # (B, H·W, C), a view if channels_last
        q, k, v = split_heads(self.qkv(tokens), self.heads, self.qkv_order)
        if self.tokens is None:
            values = attend(q, k, v)
        else:
            values = self.tokens(q, k, v, sources or {})
        values = self.out(values.transpose(1, 2).flatten(2))
        return h + values.transpose(1, 2).unflatten(2, h.shape[2:])


class CrossAttention(nn.Module):
    """h ↦ h + W Σ λ softmax(QKᵀ/√d) V, Q of GN(h), K and V of each stream's tokens alone.

    The positions do not read each other (Imagen, Saharia et al. 2022, appendix B, of its last
    stage), so that the cost grows with H·W and not with its square.

    Raises:
        ValueError: If a stream's route is not "cross".
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        if joined := [stream.name for stream in style.streams if stream.route != "cross"]:
            raise ValueError(
                f"network.streams.{joined[0]}: route join; expected route cross, as there is no "
                "self-attention to join"
            )
        self.heads = heads_of(channels, style.heads, style.head_width)
        self.norm = style.norm(channels)
        self.query = style.start(nn.Linear(channels, channels))
        self.tokens = TokenAttention(channels, self.heads, style)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, h: Tensor, sources: Mapping[str, Source] | None = None) -> Tensor:
        """Maps h (B, C, H, W) to the same shape, with the streams' states."""
        q = self.query(self.norm(h).flatten(2).transpose(1, 2))
        q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        values = self.tokens.crossed(torch.zeros_like(q), q, sources or {})
        values = self.out(values.transpose(1, 2).flatten(2))
        return h + values.transpose(1, 2).unflatten(2, h.shape[2:])


def attention_of(channels: int, style: Style) -> SelfAttention | CrossAttention | None:
    """Returns a layer of attention to what there is to read; None if that is nothing."""
    if style.self_attention:
        return SelfAttention(channels, style)
    return CrossAttention(channels, style) if style.streams else None


class AttentionPool(nn.Module):
    """What the mean of all positions reads from them in one layer of attention.

    The N = H·W positions and their mean in front get a learned position each; the result is what
    the mean's token attends to, W softmax(q₀Kᵀ/√d) V (CLIP, Radford et al. 2021, section 2.4, as
    ADM's classifier uses it). Q, K and V are split before the heads here, whatever the order of
    the network's other attention, as in ADM's code.

    Args:
        size: H = W of the feature map.
        channels: C.
        out_channels: Of the result.
        style: What the network's layers have in common.
    """

    def __init__(self, size: int, channels: int, out_channels: int, style: Style) -> None:
        super().__init__()
        self.heads = heads_of(channels, style.heads, style.head_width)
        self.position = nn.Parameter(torch.randn(channels, size**2 + 1) / channels**0.5)
        self.qkv = style.start(nn.Linear(channels, 3 * channels), parts=3)
        self.out = style.start(nn.Linear(channels, out_channels))

    def forward(self, h: Tensor) -> Tensor:
        """Maps h (B, C, H, W) to (B, out_channels)."""
        tokens = h.flatten(2)
        tokens = torch.cat([tokens.mean(2, keepdim=True), tokens], dim=2) + self.position
        q, k, v = split_heads(self.qkv(tokens.transpose(1, 2)), self.heads, "qkv-heads")
        value = attend(q[:, :, :1], k, v)  # (B, heads, 1, C / heads)
        return self.out(value.flatten(1))
