"""A small classifier of the data itself, where Inception's photographs are no measure."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.hashing import digest, weights_digest
from diffusion.common.pixels import scaled
from diffusion.common.progress import bar
from diffusion.common.validate import check_counts
from diffusion.metrics.features.base import Extractor, Record, computed_once
from diffusion.metrics.real_images import Data, collect, selected

BATCH = 128
PASSES = 60


def network(channels: int, side: int, classes: int, width: int, features: int) -> nn.Sequential:
    """Returns two convolutions and two linear layers, after LeNet-5 (LeCun et al. 1998).

    SiLU has no dead units, whose zero variance would make covariances singular.

    Args:
        channels: The images' channels.
        side: The shorter of height and width; below 16 the first convolution keeps it.
        classes: Number of labels K.
        width: Channels after the first convolution.
        features: Number of features D, the input of the last layer.
    """
    stride = 1 if side < 16 else 2
    pool = min(8, math.ceil(side / stride / 2))
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=stride, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(pool),
        nn.Flatten(),
        nn.Linear(2 * width * pool**2, features, bias=False),
        nn.BatchNorm1d(features),
        nn.SiLU(),
        nn.Linear(features, classes),
    )


class LeNet(Extractor):
    """φ(x) = input of the last layer of a classifier that was trained on half of the data.

    It learns from training images 0, 2, 4, …; generated images are compared with 1, 3, 5, …, which
    it has not seen, so that the reference's features are not those of memorised images. Call the
    result a Fréchet distance (FD), never FID: it compares only with the same network's.

    Args:
        steps: Training steps, of 128 images each; fewer if that were over 60 passes.
        width: Channels after the first convolution.
        features: Number of features D.
        seed: Seed of weights, order and shifts.
    """

    name = "lenet"
    reference = "odd"

    def __init__(
        self, steps: int = 1200, width: int = 32, features: int = 84, seed: int = 0
    ) -> None:
        check_counts("LeNet", steps=steps, width=width, features=features)
        self.settings = {"steps": steps, "width": width, "features": features, "seed": seed}
        self._net = nn.Sequential()

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Trains the network, or loads the one that was trained with the same data and settings.

        Raises:
            ValueError: If the data has no labels.
        """
        if data.num_classes is None:
            raise ValueError(
                "LeNet: data.num_classes is None; expected labelled images; use Inception"
            )
        splits = {split: data.fingerprint(split) for split in ("train", "test")}
        path = cache / f"lenet-{digest({**self.settings, **splits})}.pt"
        channels, *size = data.shape
        width, features = self.settings["width"], self.settings["features"]
        # Hooks of an evaluation run in inference mode, whose tensors cannot be trained.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(self.settings["seed"])
            net = network(channels, min(size), data.num_classes, width, features)
            saved = computed_once(path, lambda: self._fit(net, data, progress))
        net.load_state_dict(saved["net"])
        self._net = net.eval().requires_grad_(False)
        self.fingerprint, self.accuracy = weights_digest(saved["net"]), saved["accuracy"]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, D) and logits (B, K) of uint8 images (B, C, H, W)."""
        net = self._net.to(images.device)
        with torch.no_grad():
            features = net[:-1](scaled(images))
            return features, net[-1](features)

    def _fit(self, net: nn.Sequential, data: Data, progress: bool) -> Record:
        """Trains the network; returns its weights and its accuracy."""
        images, labels = collect(data, "train", "even")
        if labels is None:
            raise ValueError('LeNet: batches have no "label"; expected labelled images')
        passes = min(PASSES, math.ceil(BATCH * self.settings["steps"] / len(images)))
        order = torch.cat([torch.randperm(len(images)) for _ in range(passes)])
        rows = order.split(BATCH)[: self.settings["steps"]]
        opt = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
        rate = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=len(rows), pct_start=0.2)
        shift = max(1, min(data.shape[1:]) // 28)
        with bar("steps", progress) as shown:
            for i in shown.track(rows, description="Training LeNet, once"):
                loss = F.cross_entropy(net(shifted(scaled(images[i]), shift)), labels[i])
                opt.zero_grad()
                loss.backward()
                opt.step()
                rate.step()
        return {"net": net.state_dict(), "accuracy": accuracy(net, data)}


def shifted(x: Tensor, most: int) -> Tensor:
    """Returns the batch (B, C, H, W) moved by up to `most` pixels each way, edges repeated."""
    dy, dx = torch.randint(0, 2 * most + 1, (2,)).tolist()
    height, width = x.shape[-2:]
    return F.pad(x, (most,) * 4, mode="replicate")[..., dy : dy + height, dx : dx + width]


@torch.no_grad()
def accuracy(net: nn.Sequential, data: Data) -> float:
    """Returns the share of the test split that the network labels right, 0 … 1."""
    net.eval()
    hits = [net(scaled(b["image"])).argmax(1) == b["label"] for b in selected(data, "test")]
    return torch.cat(hits).double().mean().item()
