"""A network for points, small enough to train in seconds."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.embedding import TimeLabelEmbedding
from diffusion.networks.unet.style import xavier, zero
from diffusion.spec import DataSpec


class PointBlock(nn.Module):
    """h ↦ h + W₂ SiLU(LN(W₁ SiLU(h)) + W₃ emb)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc_in = xavier(nn.Linear(width, width))
        self.emb = xavier(nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.fc_out = zero(nn.Linear(width, width))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps h (B, width) and SiLU(emb) (B, width) to (B, width)."""
        branch = self.norm(self.fc_in(F.silu(h))) + self.emb(emb)
        return h + self.fc_out(F.silu(branch))


class MLP(Network):
    """network(x_t, t, label) for points: residual SiLU blocks with the time in each.

    Args:
        dim: D, the dimension of the points.
        width: Of the hidden layers and the embedding, even and at least 4.
        depth: Number of residual blocks.
        num_classes: K classes for the condition `label`, whose ∅ is K; None for no labels.
        out_channels: Of the output, 2 · dim to learn the variance as well; dim by default.

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        dim: int = 2,
        width: int = 128,
        depth: int = 4,
        num_classes: int | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"network.width: {width}; expected an even number of at least 4")
        check_counts("network", dim=dim, depth=depth, out_channels=out_channels)
        self.in_channels, self.out_channels = dim, out_channels or dim
        self.num_classes = num_classes
        self.embedding = TimeLabelEmbedding(width, width, num_classes)
        self.conditioners = self.embedding.conditioners
        self.fc_in = xavier(nn.Linear(dim, width))
        self.blocks = nn.ModuleList([PointBlock(width) for _ in range(depth)])
        self.fc_out = zero(nn.Linear(width, self.out_channels))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the raw output (B, out_channels), exactly 0 at initialisation, for noisy points.

        Args:
            x_t: Points (B, D).
            t: Times (B,) in 1 … T, integers or floats.
            label: Classes (B,) int64 in 0 … num_classes; None for ∅ everywhere.
        """
        emb = F.silu(self.embedding(t, label))
        h = self.fc_in(x_t)
        for block in self.blocks:
            h = block(h, emb)
        return self.fc_out(F.silu(h))


class PixelMLP(MLP):
    """An `MLP` of all the numbers of a picture, for pictures of a few pixels.

    Args:
        shape: (C, H, W) of the pictures.
        width: As for `MLP`.
        depth: As for `MLP`.
        num_classes: As for `MLP`.

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int = 128,
        depth: int = 4,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(math.prod(shape), width, depth, num_classes)
        self.in_channels = self.out_channels = shape[0]
        self.shape = tuple(shape)

    def check(self, spec: DataSpec, T: int | None = None, key: str = "model.network") -> None:
        """See `Network`; also that the pictures have the shape."""
        super().check(spec, T, key)
        if spec.shape != self.shape:
            raise ValueError(f"{key}.shape: {self.shape}; expected {spec.shape} of {spec.name}")

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `MLP`; noisy pictures (B, C, H, W) instead of points."""
        return super().forward(x_t.flatten(1), t, label).view_as(x_t)
