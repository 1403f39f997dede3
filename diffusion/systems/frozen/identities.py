"""Trained encoders of persons, fixed: what conditions on who is seen, and what judges it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        with torch.autocast(images.device.type, enabled=False):
            return F.normalize(self(images.float(), t), dim=1)


class TrainedIdentity(FrozenIdentity):
    """An `IdentityEncoder` from its checkpoint, with the averaged weights if there are any.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, such as runs/identity_avatars/checkpoints/last.ckpt.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        module = IdentityEncoder.load_from_checkpoint(checkpoint, trust=trust)
        if module.spec is None:
            raise ValueError(f"checkpoint: {checkpoint}; expected one that says its data")
        super().__init__(module.network, module.width, module.spec.shape)

    @staticmethod
    def unread() -> Locked:
        """Returns a small one without a file, to see what others would be built upon it."""
        return FrozenIdentity(nn.Identity(), 1, (3, 8, 8))
