"""The prior of DALL-E 2: a transformer that denoises the embedding of a picture."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.conditioning.tokens import Tokens
from diffusion.networks.embedding import TimeLabelEmbedding
from diffusion.networks.text.base import TextEncoder
from diffusion.networks.transformer import Transformer

ADDED = 4  # tokens behind those of the text


class EmbeddingPrior(Network):
    """network(z_t, t, text): z_0 (B, D), as `X0` reads it (DALL-E 2, Ramesh et al. 2022, 2.2).

    A transformer with a causal mask reads, in this order, the tokens of the text, the vector of the
    whole text, the embedding of t, z_t, and a learned query, each with a learned position. What it
    says at the query, projected, is the output. Where a text has no tokens nothing is read. ∅ is
    the empty text: z_t stays as it is.

    Args:
        dim: D, the size of z.
        text: The encoder of the text's tokens and of its vector: `ClipText`, so that it is CLIP's.
        width: Of the transformer.
        depth: Number of blocks.
        heads: Number of heads.

    Raises:
        ValueError: If a number is out of range.
    """

    causal: Tensor

    def __init__(
        self, dim: int, text: TextEncoder, width: int = 512, depth: int = 6, heads: int = 8
    ) -> None:
        super().__init__()
        check_counts("network", dim=dim)
        check_counts("network", least=4, width=width)
        self.in_channels = self.out_channels = dim
        self.text = Tokens("text", text)
        self.conditioners = (self.text,)
        self.words, self.vector = nn.Linear(text.width, width), nn.Linear(text.pooled_width, width)
        self.time, self.z = TimeLabelEmbedding(width, width, family="openai"), nn.Linear(dim, width)
        n = text.length + ADDED
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.position = nn.Parameter(0.01 * torch.randn(n, width))
        self.transformer = Transformer(width, depth, heads)
        self.out = nn.Linear(width, dim)
        self.register_buffer("causal", torch.ones(n, n, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x_t: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        """Returns the output (B, D).

        Args:
            x_t: z_t (B, D).
            t: Times (B,) in 1 … T.
            **conditions: What `read` returned; a text that is missing is ∅ everywhere.

        Raises:
            ValueError: If the text's encoder has no pooled vector.
        """
        read = self.text(conditions, x_t)
        if read.pooled is None:
            raise ValueError("network.text: without a pooled vector; expected one that has it")
        dtype = self.words.weight.dtype
        rows = (self.vector(read.pooled.to(dtype)), self.time(t), self.z(x_t))
        added = torch.stack([*rows, self.query.expand(len(x_t), -1)], dim=1)
        h = torch.cat([self.words(read.states.to(dtype)), added], dim=1) + self.position
        mask = self.causal
        if read.mask is not None:
            mask = mask & F.pad(read.mask, (0, ADDED), value=True)[:, None, None]
        return self.out(self.transformer(h, mask)[:, -1])
