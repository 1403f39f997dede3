"""What an encoder of persons makes of a picture: its embedding, which networks condition on."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from diffusion.codec import Codec, vectors_of
from diffusion.networks.locked import FromFile
from diffusion.spec import DataSpec
from diffusion.systems.frozen.identities import FrozenIdentity
from diffusion.systems.identity.identity_encoder import IdentityEncoder

KEY = "identity.encoder.checkpoint"


class FrozenPersonEmbedding(Codec):
    """e = f(x): whose picture it is, (B, D), as long as the encoder makes it, in float32.

    A checkpoint holds a digest of the encoder, and not its weights: with another one, of any size
    and length of embeddings, it is refused.

    Args:
        network: f, called as network(x, t) with t = 0.
        width: D.
        spec: What it was trained on.

    Attributes:
        fingerprint: 16 digits that change with the weights.

    Raises:
        ValueError: If it is not known what it was trained on, or its embeddings have no length.
    """

    decodes = False

    def __init__(self, network: nn.Module, width: int, spec: DataSpec | None) -> None:
        super().__init__()
        if spec is None:
            raise ValueError(f"{KEY}: spec None; expected an encoder that says its data")
        self.shape, self.width = tuple(spec.shape), width
        self.tower = FrozenIdentity(copy.deepcopy(network).float(), width, self.shape)
        self.fingerprint = self.tower.digest
        self.eval()
        levels = torch.linspace(-1, 1, 5)[:, None, None, None].expand(-1, *self.shape)
        lengths = self.encode(levels).norm(dim=1)
        if not (lengths.isfinite().all() and (lengths > 0).all()):
            raise ValueError(
                f"{KEY}: embeddings of length {lengths.tolist()}; expected numbers above 0"
            )

    def known_by(self) -> tuple[tuple[int, ...], str]:
        """Returns the shape (C, H, W) of its pictures, and the hash of its weights."""
        return self.shape, self.fingerprint

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Returns e (B, D) of pictures in [−1, 1]."""
        return self.tower.raw(x)

    def prepare(self, pictures: Iterable[Tensor]) -> None:
        """See `FrozenIdentity`."""
        self.tower.prepare(pictures)

    def spec(self, data: DataSpec) -> DataSpec:
        """See `Codec`.

        Raises:
            ValueError: If the encoder is of pictures of another shape.
        """
        return vectors_of(data, self.shape, self.width, KEY)


class PersonEmbedding(FromFile, FrozenPersonEmbedding):
    """An `IdentityEncoder` from its checkpoint, with the averaged weights, which is read at once.

    Args:
        checkpoint: The file, such as runs/identity_avatars/checkpoints/last.ckpt.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises what `TrainedNetwork` does.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        module = IdentityEncoder.load_from_checkpoint(checkpoint, trust=trust, key=KEY)
        super().__init__(module.network, module.width, module.spec)
