"""A generator that gives a face another identity, shaped like inswapper (insightface's, 2022).

What is published of that one is its inference: an ONNX file of 128 × 128, without training code,
losses or data. The layers here are of the same kinds in the same order, not its weights.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts

SLOPE = 0.2  # of leaky rectifiers below 0


class AdaptiveNorm(nn.Module):
    """AdaIN: (1 + γ(z)) (h − μ) / σ + β(z), mean and deviation of each channel of each picture.

    After Huang & Belongie 2017 (arXiv 1703.06868, eq. 8), γ and β being linear in z.

    Args:
        channels: Of h.
        identity: D of z.
    """

    def __init__(self, channels: int, identity: int) -> None:
        super().__init__()
        self.norm, self.style = nn.InstanceNorm2d(channels), nn.Linear(identity, 2 * channels)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Returns (B, channels, H, W) of the same and z (B, D)."""
        scale, shift = self.style(z)[:, :, None, None].chunk(2, 1)
        return self.norm(h) * (1 + scale) + shift


class SwapBlock(nn.Module):
    """h + AdaIN(W_2 ReLU(AdaIN(W_1 h, z)), z), 3 × 3 convolutions whose edges are mirrored."""

    def __init__(self, channels: int, identity: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (conv(channels, channels) for _ in range(2))
        self.norm1, self.norm2 = (AdaptiveNorm(channels, identity) for _ in range(2))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Returns (B, channels, H, W)."""
        return h + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h), z))), z)


class SwapGenerator(nn.Module):
    """network(x, e): the picture x of a face, with the identity whose embedding is e.

    7 × 7 and 3 × 3 convolutions, two that halve the sides, blocks with AdaIN, and the same way back
    with bilinear doubling; tanh at the end. Blocks read z = ê E / |ê E| with ê = e / |e|, as
    inswapper does with its "emap": E is a fixed D × D buffer, the identity matrix at first.

    Args:
        image_size: Height and width, a multiple of 4.
        in_channels: C of the pictures.
        identity: D of the embeddings.
        widths: Channels behind the two first convolutions and the two that halve; the published
            one has 128, 256, 512, 1024 at 128 × 128 with D = 512.
        blocks: How many.

    Raises:
        ValueError: If a number is out of range.
    """

    emap: Tensor

    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        identity: int = 128,
        widths: Sequence[int] = (24, 48, 96, 128),
        blocks: int = 6,
    ) -> None:
        super().__init__()
        counts = {"image_size": image_size, "in_channels": in_channels, "identity": identity}
        check_counts("model.network", **counts, blocks=blocks)
        if image_size % 4:
            raise ValueError(f"model.network.image_size: {image_size}; expected a multiple of 4")
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"model.network.widths: {list(widths)}; expected 4 counts")
        self.image_size, self.in_channels, self.identity = image_size, in_channels, identity
        a, b, c, d = widths
        self.down = nn.ModuleList(
            [conv(in_channels, a, 7), conv(a, b), conv(b, c, stride=2), conv(c, d, stride=2)]
        )
        self.blocks = nn.ModuleList([SwapBlock(d, identity) for _ in range(blocks)])
        self.up = nn.ModuleList([conv(d, c), conv(c, b), conv(b, a)])
        self.out = conv(a, in_channels, 7)
        self.register_buffer("emap", torch.eye(identity))

    def latent(self, e: Tensor) -> Tensor:
        """Returns z (B, D) of embeddings e (B, D): normalised, multiplied by E, normalised."""
        return F.normalize(F.normalize(e, dim=1) @ self.emap, dim=1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Returns pictures (B, C, H, W) in [−1, 1].

        Args:
            x: The faces whose pose and expression stay, (B, C, H, W) in [−1, 1].
            e: Embeddings of who they become, of any length, (B, D).
        """
        h, z = x, self.latent(e)
        for layer in self.down:
            h = F.leaky_relu(layer(h), SLOPE)
        for block in self.blocks:
            h = block(h, z)
        for i, layer in enumerate(self.up):
            if i < 2:
                h = F.interpolate(h, scale_factor=2.0, mode="bilinear")
            h = F.leaky_relu(layer(h), SLOPE)
        return self.out(h).tanh()


def conv(ins: int, outs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution whose edges are mirrored."""
    return nn.Conv2d(ins, outs, kernel, stride, kernel // 2, padding_mode="reflect")
