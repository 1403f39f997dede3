"""A picture's colours, as states that a decoder of captions can look at."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import ImageTower, adapt


class CountedColours(ImageTower):
    """A tower's vector, and behind its states a learned histogram of the picture and of its parts.

    h_c = W mean_{p ∈ c} φ(x_p) + e_c, where φ is a network of three layers of single pixels and the
    mean is over the whole picture (c = 0) or over one of cells × cells parts. A mean over pixels
    counts them: whatever share of a part has the colours that φ's units answer to. A frozen tower
    of photographs has averaged colours away, and so few pictures do not bring them back.

    Args:
        tower: Of the picture; its vector is returned as it is.
        units: Of φ.
        cells: Parts along an edge.

    Raises:
        ValueError: If a number is out of range, or the tower's pictures do not divide into cells.
    """

    def __init__(self, tower: ImageTower, units: int = 128, cells: int = 2) -> None:
        super().__init__()
        check_counts("network", units=units, cells=cells)
        seen = adapt(tower)
        if seen.image_size and seen.image_size % cells:
            raise ValueError(f"network.cells: {cells}; expected a divisor of {seen.image_size}")
        self.tower, self.cells = tower, cells
        self.in_channels, self.out_channels = seen.in_channels, seen.out_channels
        self.image_size, self.fixed, self.factor = seen.image_size, seen.fixed, seen.factor
        self.state_width = tower.state_width
        self.pixel = nn.Sequential(
            nn.Linear(seen.in_channels or 3, units),
            nn.GELU(),
            nn.Linear(units, units),
            nn.GELU(),
            nn.Linear(units, units),
            nn.GELU(),
        )
        self.out = nn.Linear(units, self.state_width)
        self.place = nn.Parameter(0.02 * torch.randn(1 + cells**2, self.state_width))

    def look(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageTower`; the states are (B, N + 1 + cells², state_width)."""
        vector, states = self.tower.look(x_t, t)
        counted = self.pixel(x_t.movedim(1, -1)).movedim(-1, 1)
        parts = F.adaptive_avg_pool2d(counted, self.cells).flatten(2).transpose(1, 2)
        found = torch.cat([parts.mean(1, keepdim=True), parts], 1)
        return vector, torch.cat([states, self.out(found) + self.place], 1)
