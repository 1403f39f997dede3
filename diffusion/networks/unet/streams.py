"""Streams of tokens that a UNet's attention reads beside its own positions: texts, later faces."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from diffusion.networks.conditioning.tokens import Tokens
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

    Attributes:
        tokens: The conditioner of each stream.
    """

    def __init__(self, streams: Mapping[str, Stream], style: Style) -> None:
        super().__init__()
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
        self.tokens = tuple(Tokens(name, stream.encoder) for name, stream in streams.items())

    def forward(
        self, values: Mapping[str, Tensor], x_t: Tensor
    ) -> tuple[dict[str, Source], Tensor | float]:
        """Returns what attention reads of each stream, and what is added to emb, (B, E).

        Args:
            values: The conditions; a stream that is not there is ∅ for all samples.
            x_t: Of the same batch.
        """
        sources, emb = {}, 0.0
        for tokens in self.tokens:
            name, read = tokens.name, tokens(values, x_t)
            dtype = self.norms[name].weight.dtype
            sources[name] = Source(
                self.norms[name](read.states.to(dtype)), read.mask, self.weights[name]
            )
            if name in self.pooled and read.pooled is not None:
                emb = emb + self.pooled[name](read.pooled.to(dtype))
        return sources, emb
