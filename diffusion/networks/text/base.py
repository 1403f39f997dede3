# pyright: strict
"""Encoders of texts: strings → token states, a mask, one pooled vector, and what ∅ is.

An encoder works in two parts. `read` turns strings into tensors, without gradients, and can do so
once for all: token numbers where the encoder is trained, finished states where it is frozen. These
tensors travel in a `Condition`, where a sample's text can be forgotten. `forward` makes the states
of them, inside the network, with gradients if it has parameters.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.common.hashing import weights_digest


@dataclass(frozen=True)
class Encoding:
    """Texts, or whatever else attention can read.

    Attributes:
        states: (B, L, D).
        mask: (B, L) bool, true where there is a token; None for all of them.
        pooled: One vector for the whole, (B, D'), or None.
    """

    states: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None


class TextEncoder(nn.Module, ABC):
    """Strings → `Encoding`; ∅ is the empty string.

    Attributes:
        width: D, the size of a token's state.
        pooled_width: D', the size of the pooled vector.
        length: L, the most tokens that are read; the rest of a text is left out.
        values: The names of the tensors that `read` returns.
    """

    width: int
    pooled_width: int
    length: int
    values: tuple[str, ...]

    @abstractmethod
    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns the tensors (B, ...) of the texts, on the CPU, by the names in `values`."""

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
