"""Who is seen in a picture, as tokens (IP-Adapter, Ye et al. 2023; InstantID, Wang et al. 2024)."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from diffusion.codec import Codec
from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.base import Conditioner
from diffusion.networks.conditioning.resampler import Resampler
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.networks.conditioning.tokens import Tokens
from diffusion.spec import Batch


class IdentityTokens(TokenEncoder):
    """N tokens W e + b of the embedding e (B, D) of a person's picture; ∅ is e = 0.

    e is as long as the encoder makes it. What a batch has under the condition's name is pictures
    (B, C, H, W), or embeddings (B, D) as they are. The tokens' LayerNorm is the adapter's.

    Args:
        encoder: Makes e of pictures, such as `PersonEmbedding`.
        tokens: N.
        width: Of a token; that of the base's text, from whose keys and values an adapter starts.

    Raises:
        ValueError: If the encoder makes no vectors of a known size, or a number is below 1.
    """

    values = ("",)
    pooled_width = 0

    def __init__(self, encoder: Codec, tokens: int = 4, width: int = 384) -> None:
        super().__init__()
        check_counts("IdentityTokens", tokens=tokens, width=width)
        if not encoder.width:
            raise ValueError(
                f"IdentityTokens.encoder: {type(encoder).__name__}; expected one that makes "
                "vectors of pictures, such as PersonEmbedding"
            )
        self.encoder, self.tokens, self.width = encoder.eval().requires_grad_(False), tokens, width
        self.project = self.projection()

    def projection(self) -> nn.Module:
        """Returns what maps e (B, D) to the tokens, (B, N, width), in a row or one by one."""
        return nn.Linear(self.encoder.width, self.tokens * self.width)

    @cached_property
    def null(self) -> Mapping[str, Tensor]:
        """See `TokenEncoder`."""
        return {"": torch.zeros(self.encoder.width)}

    def find(self, batch: Batch, name: str) -> dict[str, Tensor]:
        """See `TokenEncoder`.

        Raises:
            ValueError: If embeddings are of another encoder's size.
        """
        if (given := batch.get(name)) is None:
            return {}
        if given.ndim == 2 and given.shape[1] != (wanted := self.encoder.width):
            raise ValueError(
                f"{name}: embeddings of {given.shape[1]}; expected {wanted}, as the encoder makes"
            )
        with torch.no_grad():
            return {"": self.encoder.encode(given) if given.ndim == 4 else given}

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """See `TokenEncoder`."""
        dtype = next(self.project.parameters()).dtype
        found = self.project(values[""].to(dtype))
        return Encoding(found.reshape(len(found), self.tokens, self.width))


class ResampledIdentity(IdentityTokens):
    """N tokens that `Resampler` makes of e (InstantID, arXiv 2401.07519, section 3.2).

    Args:
        encoder: As for `IdentityTokens`, like all that are not listed here.
        tokens: N queries.
        width: Of a token.
        depth: Of the resampler; the authors have 4.
        heads: Of its attention; the authors have 20 of 64.
        hidden: Its width; the authors have 1280.
    """

    def __init__(
        self,
        encoder: Codec,
        tokens: int = 16,
        width: int = 384,
        depth: int = 4,
        heads: int = 20,
        hidden: int = 1280,
    ) -> None:
        self.sizes = depth, heads, hidden
        super().__init__(encoder, tokens, width)

    def projection(self) -> nn.Module:
        """See `IdentityTokens`."""
        return Resampler(self.encoder.width, self.tokens, self.width, *self.sizes)


def identity_tokens(conditioners: Iterable[Conditioner]) -> dict[str, IdentityTokens]:
    """Returns those that read who is seen, by the name of the condition."""
    found = {one.name: one.encoder for one in conditioners if isinstance(one, Tokens)}
    return {name: one for name, one in found.items() if isinstance(one, IdentityTokens)}
