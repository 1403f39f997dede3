"""IP-Adapter (Ye et al. 2023, https://arxiv.org/abs/2308.06721)."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from diffusion.networks.base import Network
from diffusion.networks.conditioning.base import distinct
from diffusion.networks.conditioning.identity_tokens import IdentityTokens
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.networks.conditioning.tokens import Tokens
from diffusion.networks.locked import Locked
from diffusion.networks.unet.token_attention import Source, Streams, TokenAttention
from diffusion.networks.unet.unet import UNet
from diffusion.spec import DataSpec


class WeighedTokens(Tokens):
    """Tokens, and how strongly they are obeyed: λ of each sample, NAME_strength (B, 1).

    λ is part of the task, and not forgotten; 1 where it is missing. See `ImageStrength`.
    """

    def __init__(self, name: str, encoder: TokenEncoder) -> None:
        super().__init__(name, encoder)
        self.strength = f"{name}_strength"
        self.keys, self.required = (*self.keys, self.strength), (self.strength,)

    @property
    def null(self) -> Mapping[str, Tensor]:
        """See `Conditioner`."""
        values = self.encoder.null
        return {self.name + suffix: values[suffix] for suffix in self.encoder.values}


class IPAdapter(Network):
    """Z = Attn(Q, K_t, V_t) + λ Attn(Q, K_i, V_i) in each layer of a trained UNet (eq. 5 and 6).

    Attn(Q, K_t, V_t) is the base's attention to text, whichever its route; K_i and V_i are of the
    tokens of a picture, by layers that start as those of the base's text where the widths agree.
    The sum comes before the layer's last projection. The base stays as it is, in evaluation; only
    what is added to it is trained, averaged and saved.

    Args:
        base: A trained `UNet` with a stream of text, locked, such as `TrainedNetwork`.
        identity: Makes the tokens, such as `IdentityTokens`.
        name: Of their condition.
        stream: The base's stream whose keys and values are copied.
        checkpointing: As for `Encoder`, whatever the base was trained with.

    Raises:
        ValueError: If the base is no UNet, or has no such stream.
    """

    def __init__(
        self,
        base: Locked,
        identity: TokenEncoder,
        name: str = "identity",
        stream: str = "text",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        network = base.base
        if not isinstance(network, UNet):
            raise ValueError(f"network.base: {type(network).__name__}; expected a UNet")
        if network.streams is None or stream not in network.streams.encoders:
            found = "none" if network.streams is None else [*network.streams.encoders]
            raise ValueError(f"network.base: streams {found}; expected '{stream}', to start from")
        network.checkpointing = checkpointing
        self.base, self.identity, self.stream = base, identity, stream
        self.layers = tuple(  # in a tuple, so that they are no second submodules
            part for part in network.modules() if isinstance(part, TokenAttention)
        )
        self.same = identity.width == network.streams.encoders[stream].width
        theirs = [layer.keys_values[stream] for layer in self.layers]
        self.keys_values = nn.ModuleList(self._start(layer) for layer in theirs)
        norm = network.streams.norms[stream] if self.same else nn.LayerNorm(identity.width)
        self.norm = copy.deepcopy(norm).requires_grad_(True)
        self._tokens = (WeighedTokens(name, identity),)  # whose encoder is `identity`
        self.conditioners = distinct([*network.conditioners, *self._tokens])
        self.in_channels, self.out_channels = network.in_channels, network.out_channels
        self.image_size, self.factor = network.image_size, network.factor
        self.num_classes, self.T = network.num_classes, network.T

    def _start(self, layer: nn.Module) -> nn.Module:
        """Returns a layer of keys and values, with the base's weights if they fit."""
        assert isinstance(layer, nn.Linear)
        if self.same:
            return copy.deepcopy(layer).requires_grad_(True).train()
        return nn.Linear(self.identity.width, layer.out_features)

    @property
    def network(self) -> UNet:
        """The base."""
        assert isinstance(self.base.base, UNet)
        return self.base.base

    @property
    def tokens(self) -> WeighedTokens:
        """What the picture's tokens are read by."""
        return self._tokens[0]

    @property
    def streams(self) -> Streams:
        """The base's."""
        assert self.network.streams is not None
        return self.network.streams

    def check(self, spec: DataSpec, T: int | None = None, key: str = "model.network") -> None:
        """See `Network`; also that the encoder of identities reads such pictures."""
        super().check(spec, T, key)
        if isinstance(self.identity, IdentityTokens):
            self.identity.encoder.spec(spec)

    def source(self, read: Encoding, values: Mapping[str, Tensor]) -> Source:
        """Returns what attention reads of the tokens."""
        strength = values.get(self.tokens.strength)
        strength = None if strength is None else strength[:, :, None, None]
        layers: dict[nn.Module, nn.Module] = dict(zip(self.layers, self.keys_values))
        return Source(self.norm(read.states), read.mask, 1.0, strength, layers)

    def forward(
        self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **conditions: Tensor
    ) -> Tensor:
        """Returns the base's output, whose attention also reads the tokens; see `UNet.forward`."""
        base = self.network
        texts, seen = base.encodings(x_t, conditions), base.see(x_t, conditions)
        emb, sources = base.embed(texts, t, label, conditions)
        read = self.tokens(conditions, x_t)
        sources = {**(sources or {}), self.tokens.name: self.source(read, conditions)}
        h, skips = base.encode(seen, emb, sources)
        h, skips = self.controlled(h, skips, read, seen, t, label, conditions)
        return base.decode(h, skips, emb, x_t, sources)

    def controlled(
        self,
        h: Tensor,
        skips: list[Tensor],
        read: Encoding,
        seen: Tensor,
        t: Tensor,
        label: Tensor | None,
        conditions: Mapping[str, Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the maps that the decoder reads; as they are, without an `IdentityNet`."""
        return h, skips
