"""The embedding of a picture as condition (DALL-E 2, Ramesh et al. 2022; arXiv 2204.06125)."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from diffusion.codec import Codec
from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.base import Conditioner
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.networks.conditioning.tokens import Tokens
from diffusion.spec import Batch


class ImageEmbedding(TokenEncoder):
    """z (B, D) of a picture: N tokens W z + b, and z itself as the pooled vector; ∅ is z = 0.

    A `Stream` of it is section 2.1 of the paper: four more tokens beside those of the text, and z
    projected and added to the embedding of the time. Of the null embedding b is what remains, which
    is trained. z is what a batch has under the condition's name, say because the stage before in a
    `Cascade` has drawn it, or else the codec's of the batch's "image_prompt", or of its "image";
    without any it is ∅.

    Args:
        codec: Makes z of pictures; one whose z are vectors.
        tokens: N.

    Raises:
        ValueError: If the codec's z are no vectors of a known size.
    """

    values = ("",)

    def __init__(self, codec: Codec, tokens: int = 4) -> None:
        super().__init__()
        check_counts("ImageEmbedding", tokens=tokens)
        if not codec.width:
            raise ValueError(
                f"ImageEmbedding.codec: {type(codec).__name__}; expected one whose z are vectors, "
                "such as ClipImage"
            )
        self.width = self.pooled_width = codec.width
        self.codec, self.tokens = codec.eval().requires_grad_(False), tokens
        self.project = nn.Linear(codec.width, tokens * codec.width)

    @cached_property
    def null(self) -> Mapping[str, Tensor]:
        """See `TokenEncoder`."""
        return {"": torch.zeros(self.width)}

    def find(self, batch: Batch, name: str) -> dict[str, Tensor]:
        """See `TokenEncoder`."""
        if name in batch:
            return {"": batch[name]}
        images = batch.get("image_prompt", batch.get("image"))
        if images is None:
            return {}
        with torch.no_grad():
            return {"": self.codec.encode(images)}

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """See `TokenEncoder`."""
        z = values[""].to(self.project.weight.dtype)
        return Encoding(self.project(z).unflatten(1, (self.tokens, -1)), None, z)


def image_embeddings(conditioners: Iterable[Conditioner]) -> dict[str, ImageEmbedding]:
    """Returns those that read embeddings of pictures, by the name of the condition."""
    found = {one.name: one.encoder for one in conditioners if isinstance(one, Tokens)}
    return {name: one for name, one in found.items() if isinstance(one, ImageEmbedding)}
