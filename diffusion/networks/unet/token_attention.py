"""Attention of an image's positions to tokens of other sources: texts, embeddings of pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.networks.conditioning.tokens import Tokens
from diffusion.networks.half_precision import attend
from diffusion.networks.unet.style import Route, Style


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
        self, encoder: TokenEncoder, route: Route = "join", pooled: bool = True, weight: float = 1.0
    ) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"streams.weight: {weight}; expected a number ≥ 0")
        self.encoder, self.pooled, self.weight = encoder, pooled, weight
        self.route: Route = route


@dataclass(frozen=True)
class Source:
    """What an attention layer reads of a stream.

    Attributes:
        states: (B, L, D), normalised.
        mask: (B, L) bool, true where there is a token, or None for all.
        weight: λ.
        strength: What λ is multiplied by where the route is "cross", (B, 1, 1, 1), or None.
        keys_values: Of tokens that are no stream of the network's own, and whose route is "cross":
            what makes K and V of the states, (B, L, 2C), for each layer of attention.
    """

    states: Tensor
    mask: Tensor | None
    weight: float
    strength: Tensor | None = None
    keys_values: Mapping[nn.Module, nn.Module] | None = None

    def bias(self, like: Tensor, weight: float = 1.0) -> Tensor | None:
        """Returns what is added to the logits of attention, (B, 1, 1, L), or None for nothing.

        It is the logarithm of a weight, −∞ for 0, and −∞ where there is no token.
        """
        if self.mask is None and weight == 1:
            return None
        log_weight = math.log(weight) if weight else -math.inf
        bias = like.new_full(self.states.shape[:2], log_weight)
        if self.mask is not None:
            bias = bias.masked_fill(~self.mask, -math.inf)
        return bias[:, None, None]


class Streams(nn.Module):
    """The encoders of a network, a LayerNorm for the states of each, and their pooled vectors.

    A stream's name is also that of its condition; `tokens` are the conditioners.
    """

    def __init__(self, streams: Mapping[str, Stream], style: Style) -> None:
        super().__init__()
        self.weights = {name: stream.weight for name, stream in streams.items()}
        self.encoders = nn.ModuleDict({name: s.encoder for name, s in streams.items()})
        self.norms = nn.ModuleDict({n: nn.LayerNorm(s.encoder.width) for n, s in streams.items()})
        self.pooled = nn.ModuleDict()
        for name, width in ((n, s.encoder.pooled_width) for n, s in streams.items() if s.pooled):
            layers = nn.LayerNorm(width), style.start(nn.Linear(width, style.emb_width))
            self.pooled[name] = nn.Sequential(*layers)
        self.tokens = tuple(Tokens(name, stream.encoder) for name, stream in streams.items())

    def encodings(self, values: Mapping[str, Tensor], x_t: Tensor) -> dict[str, Encoding]:
        """Returns what the encoders make of each stream.

        Args:
            values: The conditions; a stream that is not there is ∅ for all samples.
            x_t: Of the same batch.
        """
        return {tokens.name: tokens(values, x_t) for tokens in self.tokens}

    def forward(
        self, encodings: Mapping[str, Encoding]
    ) -> tuple[dict[str, Source], Tensor | float]:
        """Returns what attention reads of each stream, and what is added to emb, (B, E)."""
        sources: dict[str, Source] = {}
        emb: Tensor | float = 0.0
        for name, read in encodings.items():
            norm = self.norms[name]
            dtype = norm.get_parameter("weight").dtype
            sources[name] = Source(norm(read.states.to(dtype)), read.mask, self.weights[name])
            if name in self.pooled and read.pooled is not None:
                emb = emb + self.pooled[name](read.pooled.to(dtype))
        return sources, emb


class TokenAttention(nn.Module):
    """Keys and values of the tokens of each stream, for one layer of attention."""

    def __init__(self, channels: int, heads: int, style: Style) -> None:
        super().__init__()
        self.heads, self.tokens = heads, {s.name: s for s in style.streams}
        self.keys_values = nn.ModuleDict(
            {s.name: style.start(nn.Linear(s.width, 2 * channels), parts=2) for s in style.streams}
        )

    def route(self, name: str) -> Route:
        """Returns how tokens are read; those that are none of its streams by "cross"."""
        return self.tokens[name].route if name in self.tokens else "cross"

    def split(self, name: str, source: Source) -> tuple[Tensor, Tensor]:
        """Returns K and V of a stream's states, each (B, heads, L, C / heads)."""
        given = source.keys_values
        layer = self.keys_values[name] if given is None else given[self]
        both = layer(source.states).unflatten(2, (2, self.heads, -1))
        both = both.permute(2, 0, 3, 1, 4)
        return both[0], both[1]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, sources: Mapping[str, Source]) -> Tensor:
        """Returns what the positions read: of each other, and of the tokens.

        Args:
            q: (B, heads, N, C / heads), like k and v.
            k: The positions' own keys.
            v: Their values.
            sources: The streams' states.
        """
        joined = {name: source for name, source in sources.items() if self.route(name) == "join"}
        bias: Tensor | None = None
        for name, source in joined.items():
            more_k, more_v = self.split(name, source)
            more = source.bias(q, source.weight)
            if bias is not None or more is not None:
                zeros = [q.new_zeros(len(q), 1, 1, keys.shape[2]) for keys in (k, more_k)]
                both = [zero if b is None else b for b, zero in zip((bias, more), zeros)]
                bias = torch.cat(both, dim=3)
            k, v = torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2)
        values = attend(q, k, v, bias)
        return self.crossed(values, q, sources)

    def crossed(self, values: Tensor, q: Tensor, sources: Mapping[str, Source]) -> Tensor:
        """Returns values (B, heads, N, C / heads) + Σ λ softmax(QKᵀ/√d) V of "cross" streams."""
        for name, source in sources.items():
            if self.route(name) == "cross":
                k, v = self.split(name, source)
                read = attend(q, k, v, source.bias(q))
                read = read if source.strength is None else source.strength.to(read) * read
                values = values + source.weight * read
        return values
