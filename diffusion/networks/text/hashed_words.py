# pyright: strict
"""Words by their hash, and the plainest encoder of texts that is trained: a bag of words."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.networks.text.base import TextEncoder


class HashedWords(TextEncoder):
    """A row of an embedding for each word and sign of a text, and one for its end.

    The row is chosen by a hash, so that no vocabulary has to be built; two words share a row with
    probability 1 / `rows`.

    Args:
        width: D.
        length: L, the most words, the end included.
        rows: Of the embedding.

    Raises:
        ValueError: If a number is out of range.
    """

    values = ("", "_last")

    def __init__(self, width: int, length: int, rows: int) -> None:
        super().__init__()
        name = type(self).__name__
        check_counts(name, least=2, length=length, rows=rows)
        check_counts("network", width=width)
        self.width = self.pooled_width = width
        self.length, self.rows = length, rows
        self.embedding = nn.Embedding(rows, width)

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns "": ids (B, L) int64, −1 behind the end; "_last": the end's position (B,)."""
        ids = torch.full((len(texts), self.length), -1)
        last = torch.empty(len(texts), dtype=torch.int64)
        for row, text in enumerate(texts):
            found = [self._row(word) for word in words(text)[: self.length - 1]]
            ids[row, : len(found) + 1] = torch.tensor([*found, 0])
            last[row] = len(found)
        return {"": ids, "_last": last}

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """See `TextEncoder`; the end counts."""
        return [len(words(text)) + 1 for text in texts]

    def _row(self, word: str) -> int:
        """Returns 1 … rows − 1, as row 0 is the end."""
        number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        return 1 + number % (self.rows - 1)


class BagOfWords(HashedWords):
    """A trained vector for each word, whatever stands beside it: h_i = v(w_i), and their mean.

    What a text says by the order of its words, it cannot tell; what each word says, it can. The end
    of the text counts as a word, so that an empty one has a mean.

    Args:
        width: D.
        length: L, the most words, the end included.
        rows: Of the embedding.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, width: int = 128, length: int = 24, rows: int = 8192) -> None:
        super().__init__(width, length, rows)

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """See `TextEncoder`."""
        ids = values[""]
        mask = ids >= 0
        states = self.embedding(ids.clamp(min=0)) * mask[..., None]
        return Encoding(states, mask, states.sum(1) / mask.sum(1, keepdim=True))


def words(text: str) -> list[str]:
    """Returns the words, in small composed letters (NFC), and the other signs of a text.

    A byte order mark, which files of texts may begin with, is no sign.
    """
    composed = unicodedata.normalize("NFC", text.replace("\ufeff", "").lower())
    return re.findall(r"\w+|[^\w\s]", composed)
