# pyright: strict
"""What attention can read, and what makes it of a batch: of its texts, of its pictures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from diffusion.spec import Batch


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


class TokenEncoder(nn.Module, ABC):
    """Something of a batch → `Encoding`, in two parts.

    `find` makes tensors of a batch, without gradients, which travel in a `Condition`, where they
    can be forgotten. `forward` makes the states of them, inside the network, with gradients if it
    has parameters.

    Attributes:
        width: D, the size of a token's state.
        pooled_width: D', the size of the pooled vector.
        values: The names of the tensors, which follow the condition's name: "" is the first one's.
    """

    width: int
    pooled_width: int
    values: tuple[str, ...]

    @cached_property
    @abstractmethod
    def null(self) -> Mapping[str, Tensor]:
        """∅: what `find` returns where there is nothing, without its first axis."""

    @abstractmethod
    def find(self, batch: Batch, name: str) -> dict[str, Tensor]:
        """Returns the tensors (B, ...) by the names in `values`, or nothing.

        Args:
            batch: What a data module yields, or a request.
            name: Of the condition.
        """

    @abstractmethod
    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """Returns the states of what `find` returned, wherever that is now."""
