"""A network for points, small enough to train in seconds."""

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.embedding import TimeLabelEmbedding
from diffusion.networks.unet.style import xavier, zero


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

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self, dim: int = 2, width: int = 128, depth: int = 4, num_classes: int | None = None
    ) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"network.width: {width}; expected an even number of at least 4")
        check_counts("network", dim=dim, depth=depth)
        self.in_channels = self.out_channels = dim
        self.num_classes = num_classes
        self.embedding = TimeLabelEmbedding(width, width, num_classes)
        self.conditioners = self.embedding.conditioners
        self.fc_in = xavier(nn.Linear(dim, width))
        self.blocks = nn.ModuleList([PointBlock(width) for _ in range(depth)])
        self.fc_out = zero(nn.Linear(width, dim))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the raw output (B, D), exactly 0 at initialisation, for noisy points.

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
