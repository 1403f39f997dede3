"""The image tower of CLIP for noisy pictures (GLIDE, Nichol et al. 2021, section 4.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import ImageTower
from diffusion.networks.transformer import Transformer


class ViT(ImageTower):
    """network(x_t, t): a vector for a picture, by a transformer over its patches and its time.

    The first token is the time's: one learned embedding for each t = 0 … T, where CLIP's vision
    transformer has the class token, and t = 0 is the clean picture (GLIDE's code). What comes out
    at its place, through LayerNorm and a linear map, is the vector.

    Args:
        image_size: Height and width of the pictures in pixels.
        in_channels: Their channels.
        patch: Side of the square patches.
        width: Size of a token.
        depth: Number of blocks.
        heads: Number of heads.
        out_channels: D, the size of the vector.
        T: The last time; None for clean pictures only, whose t is not looked at.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        patch: int = 4,
        width: int = 192,
        depth: int = 4,
        heads: int = 3,
        out_channels: int = 128,
        T: int | None = None,
    ) -> None:
        super().__init__()
        if patch < 1 or image_size < patch or image_size % patch:
            raise ValueError(f"network.image_size: {image_size}; expected a multiple of {patch}")
        check_counts("network", in_channels=in_channels, width=width, out_channels=out_channels)
        check_counts("network", T=T)
        self.image_size, self.in_channels, self.out_channels = image_size, in_channels, out_channels
        self.state_width = width
        self.patch = self.factor = patch
        self.fixed = True
        self.T = T
        self.patches = nn.Linear(in_channels * patch**2, width, bias=False)
        start = width**-0.5  # CLIP's code
        self.time = nn.Parameter(start * torch.randn(1 + (T or 0), width))
        self.position = nn.Parameter(start * torch.randn(1 + (image_size // patch) ** 2, width))
        self.norm = nn.LayerNorm(width)
        self.transformer = Transformer(width, depth, heads)
        self.out = nn.Linear(width, out_channels, bias=False)
        nn.init.normal_(self.out.weight, std=start)

    def look(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageTower`; the times t are in 0 … T, the states those of all tokens."""
        self.check_size(x_t)
        patches = self.patches(F.pixel_unshuffle(x_t, self.patch).flatten(2).transpose(1, 2))
        time = self.time[t if self.T else torch.zeros_like(t)]
        tokens = torch.cat([time[:, None].to(patches.dtype), patches], dim=1) + self.position
        states = self.transformer(self.norm(tokens))
        return self.out(states[:, 0]), states
