# pyright: strict
"""Encoders of texts: strings → token states, a mask, one pooled vector, and what ∅ is.

`read` turns strings into tensors, and can do so once for all: token numbers where the encoder is
trained, finished states where it is frozen.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.hashing import weights_digest
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.spec import Batch


class TextEncoder(TokenEncoder):
    """Strings → `Encoding`; ∅ is the empty string.

    Attributes:
        length: L, the most tokens that are read; the rest of a text is left out.
    """

    length: int

    @abstractmethod
    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns the tensors (B, ...) of the texts, on the CPU, by the names in `values`."""

    def find(self, batch: Batch, name: str) -> dict[str, Tensor]:
        """Returns what `read` does of the texts of that name."""
        return self.read(batch[name]) if name in batch else {}

    @abstractmethod
    def sizes(self, texts: Sequence[str]) -> list[int]:
        """Returns how many tokens each text has, with those beyond `length`."""

    @abstractmethod
    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """Returns the states of what `read` returned, wherever that is now."""

    def digest(self) -> str:
        """Returns a hash of the weights that are read with."""
        return weights_digest(self.state_dict())

    @cached_property
    def null(self) -> dict[str, Tensor]:
        """What `read` returns for the empty string, without its first axis."""
        with torch.inference_mode(False), torch.no_grad():  # it may be used in training too
            return {name: value[0] for name, value in self.read([""]).items()}

    def remember(self, texts: Sequence[str], cache: Path, progress: bool = True) -> None:
        """Reads the texts once for all; a costly encoder keeps the result on disk, by its hash.

        Args:
            texts: All that will be asked for, in any order, repeated or not.
            cache: The folder for files that are computed once.
            progress: Whether to draw a progress bar.
        """
