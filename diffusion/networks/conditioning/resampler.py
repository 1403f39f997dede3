"""Learned queries that read one vector or many (Perceiver, Jaegle et al. 2021; IP-Adapter Plus)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.half_precision import attend
from diffusion.networks.unet.attention import heads_of


class ReadBlock(nn.Module):
    """h ↦ h + Attn(LN(h), [LN(x); LN(h)]), then h ↦ h + W₂ GELU(W₁ LN(h)): queries h read x.

    As in the code of IP-Adapter, keys and values are of x and of the queries themselves, and no
    layer but the norms has a bias.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads_of(width, heads, None)
        self.norm_x, self.norm, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """Maps queries (B, N, D) to the same, reading x (B, M, D)."""
        normed = self.norm(h)
        both = self.keys_values(torch.cat([self.norm_x(x), normed], 1)).chunk(2, -1)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(normed), *both)
        )
        read = attend(q, k, v).transpose(1, 2).flatten(2)
        h = h + self.out(read)
        return h + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(h))))


class Resampler(nn.Module):
    """e (B, D) or (B, M, D) ↦ N tokens: learned queries that read W e + b in some blocks.

    Args:
        in_width: D.
        tokens: N.
        out_width: Of a token.
        depth: Blocks.
        heads: Of their attention.
        width: Of the queries.

    Raises:
        ValueError: If a number is below 1, or the heads do not divide the width.
    """

    def __init__(
        self, in_width: int, tokens: int, out_width: int, depth: int, heads: int, width: int
    ) -> None:
        super().__init__()
        check_counts("Resampler", depth=depth, heads=heads, width=width)
        self.queries = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)
        self.read = nn.Linear(in_width, width)
        self.blocks = nn.ModuleList(ReadBlock(width, heads) for _ in range(depth))
        self.out, self.norm = nn.Linear(width, out_width), nn.LayerNorm(out_width)

    def forward(self, e: Tensor) -> Tensor:
        """Returns the tokens (B, N, out_width)."""
        x = self.read(e if e.ndim == 3 else e[:, None])
        h = self.queries.expand(len(x), -1, -1)
        for block in self.blocks:
            h = block(h, x)
        return self.norm(self.out(h))
