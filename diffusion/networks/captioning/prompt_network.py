"""From a short prompt to a detailed caption: an encoder, and the captioner's decoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_shares
from diffusion.networks.captioning.decoder import Decoder
from diffusion.networks.captioning.speaker import Speaker
from diffusion.networks.captioning.vocabulary import END, Vocabulary
from diffusion.networks.transformer import Transformer


class PromptNetwork(Speaker):
    """p(y_l | y_1 … y_{l−1}, prompt): a `Decoder` that looks at a prompt in place of a picture.

    The prompt is read by a transformer without a mask; both share tokens and places.

    Args:
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
        self.vocabulary = Vocabulary(rows, length)
        self.embedding = nn.Embedding(rows, width)
        self.position = nn.Parameter(0.01 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.reader = Transformer(width, reads, heads)
        self.decoder = Decoder(width, depth, looks, heads)
        self.dropout = nn.Dropout(dropout)

    def look(self, prompts: Tensor) -> Tensor:
        """Returns the states (B, M, width) of prompts.

        Args:
            prompts: Tokens, see `Vocabulary.read`, (B, M). What is behind an end is read as ends.
        """
        return self.reader(self.embedded(prompts.clamp(min=END)))

    def forward(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """Returns the logits of all tokens of captions, (B, N, K).

        Args:
            prompts: Tokens of the prompts, (B, M).
            tokens: Those of the captions, (B, N).
        """
        given = F.pad(tokens.clamp(min=END), (1, 0), value=END)[:, :-1]
        return self.logits(self.decode(given, self.look(prompts))[1])
