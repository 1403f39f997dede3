"""Transformers: the blocks of text and image towers, and the text transformer of GLIDE."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.networks.half_precision import attend
from diffusion.networks.text.hashed_words import HashedWords
from diffusion.networks.unet.attention import heads_of, split_heads


class Block(nn.Module):
    """h ↦ h + Attention(LN(h)), then h ↦ h + W₂ GELU(W₁ LN(h)) (GPT-2's order)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads_of(width, heads, None)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self,
        h: Tensor,
        mask: Tensor | None = None,
        past: list[Tensor] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Maps h (B, N, D) to the same.

        Args:
            h: The tokens; with a past that is not empty, the next one alone.
            mask: Bool, broadcastable to (B, heads, N, N).
            past: K and V of the tokens before, to which those of h are added.
            causal: Whether each token reads itself and those before it only.
        """
        q, k, v = split_heads(self.qkv(self.norm_attention(h)), self.heads, "qkv-heads")
        if past is not None:
            past[:] = [torch.cat(pair, 2) for pair in zip(past, (k, v))] if past else [k, v]
            k, v = past
        alone = causal and q.shape[2] == k.shape[2]
        values = attend(q, k, v, mask, causal=alone)
        h = h + self.out(values.transpose(1, 2).flatten(2))
        return h + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(h))))


class Transformer(nn.Module):
    """Blocks and a last LayerNorm, whose weights `start` as in GPT-2."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        check_counts("network", width=width, depth=depth)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        start(self.blocks, depth)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps h (B, N, D) to the same; mask is bool, broadcastable to (B, heads, N, N)."""
        for block in self.blocks:
            h = block(h, mask)
        return self.norm(h)


def start(blocks: nn.Module, depth: int) -> None:
    """Draws weights from a normal distribution as GPT-2 does; biases are 0.

    Its standard deviation is 0.02, and 0.02 / √(2 · depth) where a residual branch ends.
    """
    for name, parameter in blocks.named_parameters():
        if name.endswith("out.weight"):
            nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
        elif "norm" not in name:
            nn.init.zeros_(parameter)


class TextTransformer(HashedWords):
    """A transformer that is trained with what it conditions (GLIDE, Nichol et al. 2021, 4.1).

    It reads `HashedWords`. The state of the end token is the pooled vector. Positions behind it
    have a learned padding embedding (GLIDE's code), and attention reads them too.

    Args:
        width: D.
        depth: Number of blocks.
        heads: Number of heads.
        length: L, the most words, the end included.
        rows: Of the embedding.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, width: int = 128, depth: int = 2, heads: int = 4, length: int = 24, rows: int = 8192
    ) -> None:
        super().__init__(width, length, rows)
        self.position = nn.Parameter(0.01 * torch.randn(length, width))
        self.padding = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.transformer = Transformer(width, depth, heads)

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """See `TextEncoder`."""
        ids, last = values[""], values["_last"]
        h = torch.where(
            (ids < 0)[..., None], self.padding, self.embedding(ids.clamp(min=0)) + self.position
        )
        states = self.transformer(h)
        return Encoding(states, None, states[torch.arange(len(ids), device=ids.device), last])
