"""Tokens: texts, or pictures, as rows of states, which attention can read."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from diffusion.networks.conditioning.base import Conditioner
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.spec import Batch


class Tokens(Conditioner):
    """What an encoder makes of a batch, of its texts, say.

    Args:
        name: Of the condition, and of what is read of a batch.
        encoder: Makes the tokens.
    """

    def __init__(self, name: str, encoder: TokenEncoder) -> None:
        super().__init__()
        self.name, self.encoder = name, encoder
        self.keys = tuple(name + suffix for suffix in encoder.values)

    @property
    def null(self) -> Mapping[str, Tensor]:
        """See `Conditioner`; a text encoder reads the empty text when a value is asked for."""
        return Nulls(self)

    def read(self, batch: Batch, train: bool) -> dict[str, Tensor]:
        """See `Conditioner`."""
        found = self.encoder.find(batch, self.name)
        return {self.name + suffix: value for suffix, value in found.items()}

    def forward(self, values: Mapping[str, Tensor], x_t: Tensor) -> Encoding:
        """Returns the states of B samples, with gradients if the encoder has parameters.

        Args:
            values: What `read` returned; where it is missing, all are ∅.
            x_t: Of the same batch, on its device.
        """
        if self.name in values:
            return self.encoder({s: values[self.name + s] for s in self.encoder.values})
        nulls = {suffix: v.to(x_t.device) for suffix, v in self.encoder.null.items()}
        return self.encoder({s: v.expand(len(x_t), *v.shape) for s, v in nulls.items()})


class Nulls(Mapping[str, Tensor]):
    """∅ by key, read when it is asked for and not before."""

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
