"""Tokens that can be turned back into texts: whole words, and bytes for all else."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from diffusion.common.validate import check_counts

END = 0  # and the token in front of a text
BYTES = 256
PIECES = re.compile(r" ?[^\W_]+(?:['’-][^\W_]+)*| ?[^\w\s]|[\s_]")
LETTERS = 12  # bytes that there is room for, of a word in the mean
SIGNS = ",.;:!?()"


class Vocabulary(nn.Module):
    """Texts → token numbers and back, exactly: `text(tokens(x))` is x for every text.

    0 ends a text, 1 … 256 are bytes of UTF-8, and all others are words or signs with the space
    before them, of training captions; what was in none is spelled in bytes. The words are a buffer
    of the checkpoint. More may be learned later, which move none.

    Args:
        rows: The most tokens there may be.
        length: L, the most tokens of a text, the end included; the rest is cut.

    Raises:
        ValueError: If a number is out of range.
    """

    letters: Tensor

    def __init__(self, rows: int = 2048, length: int = 48) -> None:
        super().__init__()
        check_counts("network", least=BYTES + 2, rows=rows)
        check_counts("network", least=2, length=length)
        self.rows, self.length = rows, length
        self.register_buffer("letters", torch.zeros(rows * LETTERS, dtype=torch.uint8))
        self.words: list[str] = []
        self.number: dict[str, int] = {}
        self.register_load_state_dict_post_hook(lambda *_: self.reread())

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return 1 + BYTES + len(self.words)

    def reread(self) -> None:
        """Takes the words that the buffer has, of another checkpoint."""
        found = bytes(self.letters.tolist()).rstrip(b"\0").decode()
        self._take(found.split("\0") if found else [])

    def _take(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.number = {word: 1 + BYTES + i for i, word in enumerate(words)}

    @torch.no_grad()
    def learn(self, texts: Iterable[str]) -> None:
        """Adds the words of training captions behind those there are, the most frequent first.

        As many as there is room for; the others stay spelled.
        """
        self.reread()
        counts = Counter(piece for text in texts for piece in PIECES.findall(text))
        seen = [x for x in counts if len(x.encode()) > 1 and "\0" not in x]
        words = self.words
        room = len(self.letters) - len("\0".join(words).encode())
        for word in sorted(set(seen) - {*words}, key=lambda word: (-counts[word], word)):
            room -= 1 + len(word.encode())
            if room < 0 or 1 + BYTES + len(words) == self.rows:
                break
            words = [*words, word]
        self._take(words)
        packed = torch.tensor(list("\0".join(words).encode()), dtype=torch.uint8)
        self.letters.zero_()[: len(packed)] = packed.to(self.letters)

    def tokens(self, text: str) -> list[int]:
        """Returns the numbers of a text's tokens, without the end."""
        found: list[int] = []
        at = 0
        for match in PIECES.finditer(text):
            assert match.start() == at
            at = match.end()
            known = self.number.get(match[0])
            found += [1 + byte for byte in match[0].encode()] if known is None else [known]
        return found

    def read(self, texts: Sequence[str]) -> Tensor:
        """Returns the tokens (B, N) of texts, int64, N at most L, with ends; −1 behind these.

        A text that is cut has no end.
        """
        rows = [torch.tensor([*self.tokens(text), END][: self.length]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def text(self, tokens: Iterable[int]) -> str:
        """Returns the text of tokens up to the first end; bytes that are no UTF-8 become "�"."""
        found = bytearray()
        for token in tokens:
            if token == END:
                break
            word = token - 1 - BYTES
            found += bytes([token - 1]) if word < 0 else self.words[word].encode()
        return found.decode(errors="replace")

    def spelling(self, device: torch.device) -> Tensor:
        """Returns which tokens are bytes other than signs between words, bool (`size`,)."""
        found = torch.zeros(self.size, dtype=torch.bool)
        found[[1 + byte for byte in range(BYTES) if chr(byte) not in SIGNS]] = True
        return found.to(device)

    def cut(self, texts: Iterable[str]) -> int:
        """Returns how many texts have more than L tokens."""
        return sum(len(self.tokens(text)) >= self.length for text in texts)
