"""The three networks of MTCNN (Zhang et al. 2016, arXiv 1604.02878), with published weights.

They were trained on WIDER FACE and CelebA, photographs of people from the web; the weights, 0.5 M
numbers converted from the authors', come in the package facenet-pytorch (MIT).
"""

import io
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.packages import Package, obtain

PACKAGE = Package(
    name="facenet-pytorch",
    version="2.6.0",
    sha256="ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
    registry="pip",
)
PROPOSALS, FACE, POINTS = 2, 4, 10  # numbers of outputs: whether, where, and five points


class Proposal(nn.Module):
    """P-Net: a picture → for every 12 × 12 pixels, 2 apart, whether there is a face, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, PROPOSALS, 1), nn.Conv2d(32, FACE, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns p(face), (B, h, w), and how the box is moved, (B, 4, h, w)."""
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)


class Refinement(nn.Module):
    """R-Net: squares of 24 × 24 pixels → whether it is a face, and where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, PROPOSALS), nn.Linear(128, FACE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns p(face), (B,), and how the box is moved, (B, 4)."""
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = flat_maps(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.dense4(x))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class Output(nn.Module):
    """O-Net: squares of 48 × 48 pixels → whether it is a face, where it is, and its five points."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, PROPOSALS), nn.Linear(256, FACE)
        self.dense6_3 = nn.Linear(256, POINTS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns p(face), (B,), how the box is moved, (B, 4), and points in it, (B, 5, 2)."""
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu5(self.dense5(flat_maps(self.prelu4(self.conv4(x)))))
        points = self.dense6_3(x).view(-1, 2, 5).transpose(1, 2)
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), points


def flat_maps(x: Tensor) -> Tensor:
    """Returns maps (B, C, H, W) as (B, W H C), the order that the authors' layers read."""
    return x.permute(0, 3, 2, 1).flatten(1)


def load_mtcnn(root: Path) -> tuple[Proposal, Refinement, Output]:
    """Returns the networks with the published weights, fixed.

    Raises:
        FileNotFoundError: If they cannot be had; names the command that fetches them.
        ValueError: If it is another file.
    """
    with torch.random.fork_rng(devices=[]):  # initial weights leave no trace
        nets = Proposal(), Refinement(), Output()
    with zipfile.ZipFile(obtain(PACKAGE, root)) as wheel:
        for net, name in zip(nets, ("pnet", "rnet", "onet")):
            file = io.BytesIO(wheel.read(f"facenet_pytorch/data/{name}.pt"))
            net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
            net.eval().requires_grad_(False)
    return nets
