"""Trained encoders of persons, fixed: what conditions on who is seen, and what judges it."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.identity.face_embedding import WIDTH, FaceEmbedding
from diffusion.networks.locked import Locked
from diffusion.systems.identity.identity_encoder import IdentityEncoder


class FrozenIdentity(Locked):
    """f(x) / |f(x)| of an encoder of persons; gradients flow to the pictures, none to the weights.

    Args:
        network: f, called as network(x, t) with t = 0, returns (B, D).
        dimension: D.
        shape: (C, H, W) of the pictures it was trained on.

    Attributes:
        digest: 16 digits that change with the weights.
    """

    def __init__(self, network: nn.Module, dimension: int, shape: tuple[int, ...]) -> None:
        super().__init__(network)
        self.dimension, self.shape = dimension, shape
        self.digest = self.mark.removeprefix("base_")

    def embed(self, images: Tensor) -> Tensor:
        """Returns unit vectors (B, D) in float32 of pictures (B, C, H, W) in [−1, 1]."""
        return F.normalize(self.raw(images), dim=1)

    def raw(self, images: Tensor) -> Tensor:
        """Returns embeddings of their own length, (B, D) in float32."""
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self(images.float(), t)

    def known_by(self) -> tuple[tuple[int, ...], str]:
        """See `IdentityJudge`; the shape is () where pictures may have any."""
        return self.shape, self.digest

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """See `IdentityJudge`."""
        return self.raw(x)

    @torch.no_grad()
    def prepare(self, pictures: Iterable[Tensor]) -> None:
        """Sees what training shows, before it judges; most need not.

        Args:
            pictures: In batches (B, C, H, W) in [−1, 1].
        """


class TrainedIdentity(FrozenIdentity):
    """An `IdentityEncoder` from its checkpoint, with the averaged weights if there are any.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, such as runs/identity_avatars/checkpoints/last.ckpt.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises what `TrainedNetwork` does.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        module = IdentityEncoder.load_from_checkpoint(checkpoint, trust=trust, key="checkpoint")
        if module.spec is None:
            raise ValueError(f"checkpoint: {checkpoint}; expected one that says its data")
        super().__init__(module.network, module.width, module.spec.shape)

    @staticmethod
    def unread() -> Locked:
        """Returns a small one without a file, to see what others would be built upon it."""
        return FrozenIdentity(nn.Identity(), 1, (3, 8, 8))


class PublicIdentity(FrozenIdentity):
    """(f(x) − μ) / |f(x) − μ|, f the descriptors of `FaceEmbedding`, for photographs of any size.

    Descriptors of any two faces point almost the same way; with μ, the mean over what training
    shows, taken away, strangers are near 0.

    Args:
        root: Folder for the package of its weights, fetched into it if it is not there.
    """

    def __init__(self, root: str = "data") -> None:
        super().__init__(FaceEmbedding(root), WIDTH, ())
        self.mean: Tensor | None = None

    def raw(self, images: Tensor) -> Tensor:
        """See `FrozenIdentity`."""
        found = super().raw(images)
        return found if self.mean is None else found - self.mean.to(found)

    @torch.no_grad()
    def prepare(self, pictures: Iterable[Tensor]) -> None:
        """Finds μ, once."""
        if self.mean is None:
            self.mean = torch.cat([self.raw(x) for x in pictures]).mean(0)
