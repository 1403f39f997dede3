"""Streams of tokens that a UNet's attention reads beside its own positions: texts, later faces."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from diffusion.networks.text.base import TextEncoder
from diffusion.networks.unet.style import Route, Style
from diffusion.networks.unet.token_attention import Source


class Stream:
    """Where tokens come from, and how they reach the network.

    Args:
        encoder: Makes the tokens.
        route: "join": their keys and values are put beside those of the image's positions, in the
            same softmax (GLIDE, Nichol et al. 2021, section 4.1); "cross": they have a softmax of
            their own with the same queries, whose result is added before the layer's last
            projection (IP-Adapter, Ye et al. 2023, eq. 5).
        pooled: Whether the pooled vector is added to the embedding of the time.
        weight: λ ≥ 0 of the tokens, not trained: for "join" it multiplies the exponentials of the
            softmax, for "cross" the result (IP-Adapter, eq. 6). At 0 no token is read.

    Raises:
        ValueError: If the weight is negative.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        route: Route = "join",
        pooled: bool = True,
        weight: float = 1.0,
    ) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"streams.weight: {weight}; expected a number ≥ 0")
        self.encoder, self.pooled, self.weight = encoder, pooled, weight
        self.route: Route = route


class Streams(nn.Module):
    """The encoders of a network, a LayerNorm for the states of each, and their pooled vectors.

    Args:
        streams: The streams by name, which is also the name of their condition.
        style: Of the network.

    Raises:
        ValueError: If a name is taken, or ends like a part of another stream.
    """

    def __init__(self, streams: Mapping[str, Stream], style: Style) -> None:
        super().__init__()
        if "label" in streams or any(name != name.strip("_") or "_" in name for name in streams):
            raise ValueError(
                f"streams: {list(streams)}; expected other names than label, without underscores"
            )
        self.weights = {name: stream.weight for name, stream in streams.items()}
        self.encoders = nn.ModuleDict({name: s.encoder for name, s in streams.items()})
        self.norms = nn.ModuleDict({n: nn.LayerNorm(s.encoder.width) for n, s in streams.items()})
        self.pooled = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.LayerNorm(s.encoder.pooled_width),
                    style.start(nn.Linear(s.encoder.pooled_width, style.emb_width)),
                )
                for name, s in streams.items()
                if s.pooled
            }
        )

    def named(self) -> Iterator[tuple[str, TextEncoder]]:
        """Yields the encoders with their names."""
        for name, encoder in self.encoders.items():
            assert isinstance(encoder, TextEncoder)
            yield name, encoder

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of all tensors that the streams need: the stream's, and what is added to it."""
        return tuple(name + suffix for name, encoder in self.named() for suffix in encoder.values)

    def read(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns the conditions of the texts of a batch, those of all streams that it has."""
        read = {n: encoder.read(batch[n]) for n, encoder in self.named() if n in batch}
        return {n + suffix: value for n, values in read.items() for suffix, value in values.items()}

    def forward(
        self, values: Mapping[str, Tensor], batch: int
    ) -> tuple[dict[str, Source], Tensor | float]:
        """Returns what attention reads of each stream, and what is added to emb, (B, E).

        Args:
            values: The conditions; a stream that is not there is ∅ for all samples.
            batch: B.
        """
        sources, emb = {}, 0.0
        for name, encoder in self.named():
            if name in values:
                mine = {suffix: values[name + suffix] for suffix in encoder.values}
            else:
                device = next(self.norms.parameters()).device
                nulls = {suffix: v.to(device) for suffix, v in encoder.null.items()}
                mine = {k: v.expand(batch, *v.shape) for k, v in nulls.items()}
            tokens = encoder(mine)
            states = self.norms[name](tokens.states.to(self.norms[name].weight.dtype))
            sources[name] = Source(states, tokens.mask, self.weights[name])
            if name in self.pooled and tokens.pooled is not None:
                emb = emb + self.pooled[name](tokens.pooled.to(self.norms[name].weight.dtype))
        return sources, emb


class Nulls(Mapping[str, "float | Tensor"]):
    """∅ of each condition; that of a stream is read when it is asked for, not before.

    Args:
        label: ∅ of the label, or None if it cannot be forgotten.
        streams: The streams.
    """

    def __init__(self, label: int | None, streams: Streams) -> None:
        self.label, self.streams = label, streams

    def __getitem__(self, key: str) -> float | Tensor:
        if key == "label" and self.label is not None:
            return self.label
        for name, encoder in self.streams.named():
            if key.startswith(name) and key[len(name) :] in encoder.values:
                return encoder.null[key[len(name) :]]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter((*(() if self.label is None else ("label",)), *self.streams.conditions))

    def __len__(self) -> int:
        return len(list(iter(self)))
