"""Tokens: texts as rows of states, which attention can read."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from diffusion.networks.conditioning.base import Conditioner
from diffusion.networks.text.base import Encoding, TextEncoder
from diffusion.spec import Batch


class Tokens(Conditioner):
    """What an encoder makes of the texts of a batch; ∅ is the empty text.

    Args:
        name: Of the condition, and of the texts in a batch.
        encoder: Makes the tokens.
    """

    def __init__(self, name: str, encoder: TextEncoder) -> None:
        super().__init__()
        self.name, self.encoder = name, encoder
        self.keys = tuple(name + suffix for suffix in encoder.values)

    @property
    def null(self) -> "Nulls":
        """See `Conditioner`; the encoder reads the empty text when a value is asked for."""
        return Nulls(self)

    def read(self, batch: Batch, train: bool) -> dict[str, Tensor]:
        """See `Conditioner`."""
        if self.name not in batch:
            return {}
        read = self.encoder.read(batch[self.name])
        return {self.name + suffix: value for suffix, value in read.items()}

    def forward(self, values: Mapping[str, Tensor], x_t: Tensor) -> Encoding:
        """Returns the states of B texts, with gradients if the encoder has parameters.

        Args:
            values: What `read` returned; where it is missing, all texts are ∅.
            x_t: Of the batch and on the device that the texts belong to.
        """
        if self.name in values:
            return self.encoder({s: values[self.name + s] for s in self.encoder.values})
        nulls = {suffix: v.to(x_t.device) for suffix, v in self.encoder.null.items()}
        return self.encoder({s: v.expand(len(x_t), *v.shape) for s, v in nulls.items()})


class Nulls(Mapping[str, Tensor]):
    """∅ of a text by key, read when it is asked for and not before."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.tokens.keys:
            raise KeyError(key)
        return self.tokens.encoder.null[key.removeprefix(self.tokens.name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens.keys)

    def __len__(self) -> int:
        return len(self.tokens.keys)
