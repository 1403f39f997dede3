"""A public network that tells persons apart: dlib's, with weights from the package of face-api.

A residual network of 29 convolutions after He et al. 2016 (arXiv 1512.03385), which Davis King
trained on about three million pictures of 7,485 persons, from FaceScrub, VGG Face and the web, so
that descriptors of one person lie within 0.6 of each other. `@vladmandic/face-api` (MIT) has its
weights in eight bits: 5.6 M numbers. dlib's own file is CC0.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.packages import Package, obtain
from diffusion.networks.base import Network

PACKAGE = Package(
    name="@vladmandic/face-api",
    version="1.7.15",
    sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    registry="npm",
)
MEMBER = "package/model/face_recognition_model"
SIDE, WIDTH = 150, 128
MEAN = (122.782, 117.001, 104.298)  # of red, green and blue
# Blocks behind the first convolution: name, channels in, channels out, whether it halves the sides.
BLOCKS = (
    *((f"conv32_{i}", 32, 32, False) for i in (1, 2, 3)),
    ("conv64_down", 32, 64, True),
    *((f"conv64_{i}", 64, 64, False) for i in (1, 2, 3)),
    ("conv128_down", 64, 128, True),
    *((f"conv128_{i}", 128, 128, False) for i in (1, 2)),
    ("conv256_down", 128, 256, True),
    *((f"conv256_{i}", 256, 256, False) for i in (1, 2)),
    ("conv256_down_out", 256, 256, True),
)


class ScaledConv(nn.Module):
    """s (W x + b) + c: a convolution, and what is left of a batch normalization."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding)
        self.weights, self.biases = (nn.Parameter(torch.ones(outs)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, outs, H', W')."""
        s, c = (value[:, None, None] for value in (self.weights, self.biases))
        return self.conv(x) * s + c


class FaceBlock(nn.Module):
    """ReLU(x + W_2 ReLU(W_1 x)); one that halves has the means of 2 × 2 in place of x.

    Where the halves are of other sides or channels, the smaller one is filled up with zeros.
    """

    def __init__(self, ins: int, outs: int, halves: bool) -> None:
        super().__init__()
        first = (2, 0) if halves else (1, 1)  # stride and padding
        self.conv1, self.conv2 = ScaledConv(ins, outs, 3, *first), ScaledConv(outs, outs, 3, 1, 1)
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, outs, H, W), or half the sides."""
        h = self.conv2(F.relu(self.conv1(x)))
        if self.halves:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, h.shape[1] - x.shape[1]))
            h = F.pad(h, (0, x.shape[3] - h.shape[3], 0, x.shape[2] - h.shape[2]))
        return F.relu(x + h)


class FaceNet(nn.Module):
    """Faces (B, 3, 150, 150), (v − mean) / 256 of the levels v → descriptors (B, 128).

    A face is aligned as dlib's chips are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = ScaledConv(3, 32, 7, 2)
        self.blocks = nn.ModuleDict(
            {name: FaceBlock(a, b, halves) for name, a, b, halves in BLOCKS}
        )
        self.fc = nn.Linear(256, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the descriptors; those of one person are mostly within 0.6 of each other."""
        h = F.max_pool2d(F.relu(self.conv32_down(x)), 3, 2)
        for block in self.blocks.values():
            h = block(h)
        return self.fc(h.mean((2, 3)))


def load_face_net(root: Path) -> FaceNet:
    """Returns the network with the published weights, fixed.

    Raises:
        FileNotFoundError: If it cannot be had; names the command that fetches it.
        ValueError: If it is another file.
    """
    with torch.random.fork_rng(devices=[]):  # initial weights leave no trace
        net = FaceNet()
    net.load_state_dict(read_weights(obtain(PACKAGE, root), MEMBER))
    return net.eval().requires_grad_(False)


def read_weights(archive: Path, member: str) -> dict[str, Tensor]:
    """Returns TensorFlow.js' weights by this module's names: most are scale · q + min of bytes q.

    Args:
        archive: The package.
        member: Its files, without `-weights_manifest.json` and `.bin`.
    """
    with tarfile.open(archive) as files:
        manifest, packed = (
            file.read() if (file := files.extractfile(member + ending)) else b""
            for ending in ("-weights_manifest.json", ".bin")
        )
    found, start = {}, 0
    for entry in json.loads(manifest)[0]["weights"]:
        how = entry.get("quantization", {"scale": 1, "min": 0, "dtype": entry["dtype"]})
        kind, size = np.dtype(how["dtype"]), int(np.prod(entry["shape"]))
        levels = np.frombuffer(packed, kind, size, start).astype(np.float32)
        values = torch.from_numpy(levels * np.float32(how["scale"]) + np.float32(how["min"]))
        found[_renamed(entry["name"])] = _turned(values.view(entry["shape"]))
        start += size * kind.itemsize
    return found


def _renamed(name: str) -> str:
    """Returns "blocks.conv32_1.conv1.weights" for "conv32_1/conv1/scale/weights"."""
    name = name.replace("/scale/", "/").replace("/", ".").replace("filters", "weight")
    name = "fc.weight" if name == "fc" else name
    return name if name.startswith(("conv32_down", "fc")) else f"blocks.{name}"


def _turned(values: Tensor) -> Tensor:
    """Returns filters (h, w, in, out) as (out, in, h, w), and a matrix (in, out) as (out, in)."""
    if values.ndim == 4:
        return values.permute(3, 2, 0, 1).contiguous()
    return values.T.contiguous() if values.ndim == 2 else values


class FaceEmbedding(Network):
    """network(x_t, t): descriptors of aligned faces, resized to 150² (antialiased bilinear).

    It is neither trained, averaged nor saved: it is no submodule and is loaded when it is first
    needed; a mark in the state says which it is. Without noise: t is not looked at. Gradients flow
    to the pictures.

    Args:
        root: Folder for the package of its weights, fetched into it if it is not there.
    """

    mark = f"base_{PACKAGE.sha256[:16]}"

    def __init__(self, root: str = "data") -> None:
        super().__init__()
        self.out_channels, self.root = WIDTH, root
        self._base: list[FaceNet] = []  # so that it is no submodule
        self.register_buffer(self.mark, torch.empty(0))

    def forward(self, x_t: Tensor, t: Tensor | None = None) -> Tensor:
        """Returns descriptors (B, 128) of pictures (B, 1 or 3, H, W) in [−1, 1].

        Raises:
            FileNotFoundError: If the package cannot be had; names the command that fetches it.
        """
        if not self._base:
            self._base.append(load_face_net(Path(self.root).expanduser()))
        x = F.interpolate(x_t.expand(-1, 3, -1, -1), (SIDE, SIDE), mode="bilinear", antialias=True)
        mean = torch.tensor(MEAN, dtype=x.dtype, device=x.device)[:, None, None]
        return self._base[0].to(x.device)(((x + 1) * 127.5 - mean) / 256)
