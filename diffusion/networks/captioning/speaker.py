"""What says texts token by token, looking at states: of a picture, or of another text."""

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.captioning.decoder import Decoder, Past
from diffusion.networks.captioning.vocabulary import Vocabulary


class Speaker(nn.Module):
    """p(y_l | y_1 … y_{l−1}, states); the matrix of the embedding is also that of the logits.

    A subclass sets the attributes, and makes the states.

    Attributes:
        vocabulary: The tokens.
        embedding: Of tokens, (rows, width).
        position: Of places, (L, width).
        decoder: What looks at the states.
        dropout: Of embedded tokens and of states.
    """

    vocabulary: Vocabulary
    embedding: nn.Embedding
    position: nn.Parameter
    decoder: Decoder
    dropout: nn.Dropout

    def embedded(self, tokens: Tensor, at: int = 0) -> Tensor:
        """Returns tokens (B, N) with their places, which begin with number `at`, (B, N, width)."""
        return self.dropout(self.embedding(tokens) + self.position[at : at + tokens.shape[1]])

    def decode(
        self, tokens: Tensor, states: Tensor, past: Past | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the states of the decoder's two halves, each (B, N, width).

        Args:
            tokens: The start and tokens, (B, N); with a past that is not empty, the next one.
            states: What the decoder looks at, (B, M, width).
            past: What the decoder keeps, see `Decoder.past`.
        """
        at = past[0][0].shape[2] if past and past[0] else 0
        return self.decoder(self.embedded(tokens, at), states, past)

    def logits(self, states: Tensor) -> Tensor:
        """Returns log p of the next token up to a constant, (B, N, `vocabulary.size`), float32."""
        return F.linear(states, self.embedding.weight[: self.vocabulary.size]).float()
