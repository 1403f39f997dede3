"""Attention of an image's positions to tokens of other sources."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.unet.style import Route, Style


@dataclass(frozen=True)
class Source:
    """What an attention layer reads of a stream.

    Attributes:
        states: (B, L, D), normalised.
        mask: (B, L) bool, true where there is a token, or None for all.
        weight: λ.
    """

    states: Tensor
    mask: Tensor | None
    weight: float

    def bias(self, like: Tensor, log_weight: bool) -> Tensor | None:
        """Returns what is added to the logits of attention, (B, 1, 1, L), or None for nothing.

        Args:
            like: Whose dtype it has.
            log_weight: Whether log λ is part of it.
        """
        joined = log_weight and self.weight != 1
        if self.mask is None and not joined:
            return None
        weight = math.log(self.weight) if joined and self.weight else 0.0
        bias = like.new_full((len(self.states), self.states.shape[1]), weight)
        if joined and not self.weight:
            bias = torch.full_like(bias, -math.inf)
        elif self.mask is not None:
            bias = bias.masked_fill(~self.mask, -math.inf)
        return bias[:, None, None]


class TokenAttention(nn.Module):
    """Keys and values of the tokens of each stream, for one layer of attention.

    Args:
        channels: C of the layer.
        heads: Its heads.
        style: Of the network.
    """

    def __init__(self, channels: int, heads: int, style: Style) -> None:
        super().__init__()
        self.heads, self.tokens = heads, {s.name: s for s in style.streams}
        self.keys_values = nn.ModuleDict(
            {s.name: style.start(nn.Linear(s.width, 2 * channels), parts=2) for s in style.streams}
        )

    def split(self, name: str, states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns K and V of states (B, L, D), each (B, heads, L, C / heads)."""
        both = self.keys_values[name](states).unflatten(2, (2, self.heads, -1))
        k, v = both.permute(2, 0, 3, 1, 4).unbind(0)
        return k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, sources: Mapping[str, Source]) -> Tensor:
        """Returns what the positions read: of each other, and of the tokens.

        Args:
            q: (B, heads, N, C / heads), like k and v.
            k: The positions' own keys.
            v: Their values.
            sources: The streams' states.
        """
        routes: dict[Route, list[str]] = {"join": [], "cross": []}
        for name in sources:
            routes[self.tokens[name].route].append(name)
        positions, biases = q.shape[2], []
        for name in routes["join"]:
            more_k, more_v = self.split(name, sources[name].states)
            k, v = torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2)
            biases.append((sources[name].bias(q, log_weight=True), more_k.shape[2]))
        mask = join_bias(q, positions, biases)
        values = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        for name in routes["cross"]:
            source = sources[name]
            of_tokens = F.scaled_dot_product_attention(
                q, *self.split(name, source.states), attn_mask=source.bias(q, log_weight=False)
            )
            values = values + source.weight * of_tokens
        return values


def join_bias(
    q: Tensor, positions: int, biases: Sequence[tuple[Tensor | None, int]]
) -> Tensor | None:
    """Returns the bias of positions and tokens in one softmax, (B, 1, 1, N + ΣL), or None."""
    if all(bias is None for bias, _ in biases):
        return None
    shape = (len(q), 1, 1)
    parts = [b if b is not None else q.new_zeros(*shape, n) for b, n in biases]
    return torch.cat([q.new_zeros(*shape, positions), *parts], dim=3)
