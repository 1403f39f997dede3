"""From a short prompt to a detailed caption: an encoder, and the captioner's decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.devices import moved
from diffusion.common.validate import check_shares
from diffusion.networks.captioning.decoder import Decoder
from diffusion.networks.captioning.speaker import Speaker
from diffusion.networks.captioning.vocabulary import END, Vocabulary
from diffusion.networks.text.base import TextEncoder
from diffusion.networks.transformer import Transformer

MEANINGS = 4


class PromptNetwork(Speaker):
    """p(y_l | y_1 … y_{l−1}, prompt): a `Decoder` that looks at a prompt in place of a picture.

    The prompt is read by a transformer without a mask; both share tokens and places. With an
    encoder of texts beside it, its pooled vector becomes `MEANINGS` more states: what words mean
    that no caption here has.

    Args:
        text: Reads the prompt as well, such as `MiniLM`; None for nothing more.
        width: Of all states.
        reads: Blocks that read the prompt.
        depth: Blocks of the decoder's first half.
        looks: Blocks of its second half.
        heads: Of all attention.
        length: L, the most tokens of prompts and captions.
        rows: The most tokens that there are.
        dropout: Probability with which training leaves a number of an embedded token out.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        text: TextEncoder | None = None,
        width: int = 96,
        reads: int = 2,
        depth: int = 1,
        looks: int = 2,
        heads: int = 4,
        length: int = 96,
        rows: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_shares("network", dropout=dropout)
        self.vocabulary, self.text = Vocabulary(rows, length), text
        self.embedding = nn.Embedding(rows, width)
        self.position = nn.Parameter(0.01 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.reader = Transformer(width, reads, heads)
        self.meaning = text and nn.Sequential(
            nn.LayerNorm(text.pooled_width),
            nn.Linear(text.pooled_width, MEANINGS * width),
            nn.Unflatten(1, (MEANINGS, width)),
            nn.LayerNorm(width),
        )
        self.decoder = Decoder(width, depth, looks, heads)
        self.dropout = nn.Dropout(dropout)

    def pooled(self, prompts: Sequence[str]) -> Tensor | None:
        """Returns the vectors of prompts, (B, D') on this module's device, or None."""
        if self.text is None:
            return None
        values = self.text.read(prompts)
        return self.text({k: moved(x, self.position.device) for k, x in values.items()}).pooled

    def look(self, prompts: Tensor, pooled: Tensor | None) -> Tensor:
        """Returns the states (B, M + `MEANINGS`, width) of prompts; (B, M, width) without `text`.

        Args:
            prompts: Tokens, see `Vocabulary.read`, (B, M). What is behind an end is read as ends.
            pooled: Their vectors, (B, D'), see `pooled`.
        """
        states = self.reader(self.embedded(prompts.clamp(min=END)))
        if self.meaning is None or pooled is None:
            return states
        return torch.cat([states, self.dropout(self.meaning(pooled))], 1)

    def forward(self, prompts: Tensor, tokens: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Returns the logits of all tokens of captions, (B, N, K).

        Args:
            prompts: Tokens of the prompts, (B, M).
            tokens: Those of the captions, (B, N).
            pooled: Vectors of the prompts, (B, D').
        """
        given = F.pad(tokens.clamp(min=END), (1, 0), value=END)[:, :-1]
        return self.logits(self.decode(given, self.look(prompts, pooled))[1])
