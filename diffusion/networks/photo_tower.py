"""An image tower for few pictures: a frozen network of photographs under a small trained head."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.pixels import rounded
from diffusion.common.validate import check_counts
from diffusion.networks.base import ImageTower
from diffusion.networks.efficientnet_lite0 import FEATURES, PACKAGE, STAGES, Lite0, load_lite0


class Depths(nn.Module):
    """Means and standard deviations over the maps of each stage, and the means of the last maps.

    Late stages know what a picture shows, early ones how it is drawn.

    Args:
        net: EfficientNet-lite0.
        size: Height and width that pictures are resized to, antialiased bicubic.

    Attributes:
        width: D, 2 (16 + 24 + 40 + 80 + 112 + 192 + 320) + 1280.
    """

    width = 2 * sum(stage[-1] for stage in STAGES) + FEATURES

    def __init__(self, net: Lite0, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size
        repeats = torch.tensor([stage[0] for stage in STAGES])
        self.ends = set((repeats.cumsum(0) - 1).tolist())

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, D) of pictures (B, 3, H, W) in [−1, 1]."""
        x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(-1, 1)
        levels = (127.5 * (x + 1) - 127) / 128
        found = list[Tensor]()
        maps = self.net.maps(levels.contiguous(memory_format=torch.channels_last))
        for i, h in enumerate(maps):
            if i in self.ends:
                found += reversed(torch.std_mean(h, (2, 3), correction=0))
            elif i == len(self.net.blocks):
                found.append(h.mean((2, 3)))
        return torch.cat(found, 1)


class PhotoTower(ImageTower):
    """network(x_t, t): a vector for a clean picture, W_2 GELU(W_1 z), z standardized `Depths`.

    The features are those of EfficientNet-lite0 (Tan & Le 2019), which has seen 1.3 million
    photographs and is neither trained, averaged nor saved: it is no submodule and loaded when it is
    first needed; a mark in the state says which it is. Mean and variance for z are running ones,
    and the head alone has weights. Without noise: t is not looked at. Pictures that
    come again, byte for byte, are computed once while it is in training.

    Args:
        image_size: Height and width of the pictures in pixels.
        out_channels: D of the vector.
        hidden: Units between W_1 and W_2.
        dropout: In front of W_1 and of W_2.
        size: Height and width that the frozen network sees, a multiple of 32.
        root: Folder for the package of its weights, fetched into it if it is not there.

    Raises:
        ValueError: If a number is out of range.
    """

    mark = f"base_{PACKAGE.sha256[:16]}"

    def __init__(
        self,
        image_size: int = 32,
        out_channels: int = 128,
        hidden: int = 512,
        dropout: float = 0.3,
        size: int = 96,
        root: str = "data",
    ) -> None:
        super().__init__()
        check_counts("network", image_size=image_size, out_channels=out_channels, hidden=hidden)
        if size < 32 or size % 32:  # elsewhere the padding would depend on who wrote the network
            raise ValueError(f"network.size: {size}; expected a multiple of 32")
        if not 0 <= dropout < 1:
            raise ValueError(f"network.dropout: {dropout}; expected 0 ≤ dropout < 1")
        self.in_channels, self.out_channels, self.image_size = 3, out_channels, image_size
        self.fixed, self.state_width = True, hidden
        self.size, self.root = size, root
        self._base: list[Depths] = []  # so that it is no submodule
        self.register_buffer(self.mark, torch.empty(0))
        self.standard = nn.BatchNorm1d(Depths.width, affine=False)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(Depths.width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, out_channels, bias=False),
        )
        self._seen: dict[bytes, Tensor] = {}  # in fp16

    def look(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the vectors (B, out_channels) of pictures, and one state (B, 1, hidden) of each.

        Raises:
            ValueError: If the pictures are not of `image_size`.
            FileNotFoundError: If the package cannot be had; names the command that fetches it.
        """
        self.check_size(x_t)
        h = self.head[:3](self.standard(self._features(x_t)))
        return self.head[3:](h), h[:, None]

    def base(self, x: Tensor) -> Tensor:
        """Returns the frozen network's features (B, D), in float32 under autocast too.

        Computed in bfloat16 they are 0.28 off, the root of the mean square of z over 256 emoji, and
        a head would learn that and be asked with other features later.
        """
        if not self._base:
            self._base.append(Depths(load_lite0(Path(self.root).expanduser()), self.size))
        with torch.autocast(x.device.type, enabled=False):
            return self._base[0].to(x.device)(x.float())

    def _features(self, x: Tensor) -> Tensor:
        """Returns the frozen network's features (B, D); in training each picture's only once."""
        if not self.training:
            return self.base(x)
        keys = [row.tobytes() for row in rounded(x).cpu().numpy()]
        rows = {key: i for i, key in enumerate(keys) if key not in self._seen}
        if rows:
            found = self.base(x[list(rows.values())]).half().cpu()
            self._seen.update(zip(rows, found))
        with torch.autocast("cpu", enabled=False):  # which refuses to stack fp16 in bfloat16
            return torch.stack([self._seen[key] for key in keys]).to(x)
