"""Features of a network that has seen photographs, for colour images that are too few for FID."""

from functools import cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.hashing import digest, weights_digest
from diffusion.common.progress import bar
from diffusion.metrics.features.base import (
    Extractor,
    Record,
    check_colours,
    computed_once,
    features_file,
)
from diffusion.metrics.features.probe import principal, probe
from diffusion.metrics.real_images import Data, selected
from diffusion.networks.efficientnet_lite0 import FEATURES, PACKAGE, Lite0, load_lite0

Split = tuple[Tensor, Tensor | None]
AT_ONCE = 16  # more do not fit a processor's cache, and are slower


class EfficientNet(Extractor):
    """φ(x) = Vᵀ(f(x) − μ): EfficientNet-lite0's 1280 features in their 64 main directions.

    f are the means over the last maps, of the image resized to `size` by antialiased bicubic
    interpolation, with values (v − 127) / 128. μ and V, the first eigenvectors of the covariance,
    are fitted once to the whole training split and stored; so the covariances of some hundred
    images have full rank, and what training images do not vary in is not seen. The logits are those
    of a linear classifier of f that is fitted to the training split's labels.

    The result is a Fréchet distance (FD), never FID. It compares only at the same n, with the same
    fingerprint.

    Args:
        size: Height and width the network sees, a multiple of 32.
        features: The number of directions D.
        root: Folder for the package of the weights, fetched into it if it is not there.

    Attributes:
        explained: The directions' share of the variance of f.
    """

    name = "effnet"

    def __init__(self, size: int = 96, features: int = 64, root: str = "data") -> None:
        if size < 32 or size % 32:  # elsewhere the padding would depend on who wrote the network
            raise ValueError(f"EfficientNet.size: {size}; expected a multiple of 32")
        if not 1 <= features <= FEATURES:
            raise ValueError(f"EfficientNet.features: {features}; expected 1 … {FEATURES}")
        self.size, self.features, self.root = size, features, root
        self.explained: float | None = None
        self._fitted: dict[str, Tensor] = {}

    @cached_property
    def net(self) -> Lite0:
        """The network, loaded when it is asked for first."""
        return load_lite0(Path(self.root)).to(memory_format=torch.channels_last)

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Loads the weights, and fits directions and classifier or loads those fitted before.

        Raises:
            FileNotFoundError: If the package cannot be had; names the command that fetches it.
            ValueError: If the images have neither one nor three channels, or are too few.
        """
        check_colours(self, data)
        self.net.eval()  # loads it, before any time is spent on images
        key = {
            "weights": PACKAGE.sha256,
            "size": self.size,
            "features": self.features,
            "classes": data.num_classes,
            **{split: data.fingerprint(split) for split in ("train", "test")},
        }
        seen: dict[str, Tensor] = {}

        def fitted() -> Record:
            # Hooks of an evaluation run in inference mode, whose tensors cannot be trained.
            with torch.inference_mode(False), torch.enable_grad():
                train, test = (self._read(data, split, progress) for split in ("train", "test"))
                seen.update(train=train[0], test=test[0])
                return fit(train, test, self.features, data.num_classes)

        found = computed_once(cache / f"effnet-{digest(key)}.pt", fitted)
        self.explained, self.accuracy = found["explained"], found["accuracy"]
        self._fitted = {k: v for k, v in found.items() if isinstance(v, Tensor)}
        about = {"fitted": weights_digest(self._fitted), "size": self.size, "net": PACKAGE.sha256}
        self.fingerprint = digest(about)
        for split, f in seen.items():  # the reference and the floor, without reading them again
            computed_once(features_file(data, split, "all", self, cache), partial(self._project, f))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, D) and logits (B, K) of uint8 images (B, 1 or 3, H, W).

        Without labels K is 0.
        """
        f = self._raw(images)
        weight, bias = (self._fitted[key].to(f.device) for key in ("weight", "bias"))
        return self._project(f), F.linear(f, weight, bias)

    def describe(self) -> Record:
        """Returns also what is seen of the network's features."""
        about = {"size": self.size, "directions": self.features, "explained": self.explained}
        return {**super().describe(), **about}

    def _read(self, data: Data, split: str, progress: bool) -> Split:
        """Returns the 1280 features of a split's images, and their labels if there are any."""
        found, labels = [], []
        with bar("images", progress) as shown:
            task = shown.add_task(f"Features of {split} images, once", total=None)
            for batch in selected(data, split):
                found.append(self._raw(batch["image"]))
                if "label" in batch:
                    labels.append(batch["label"])
                shown.advance(task, len(batch["image"]))
        if not found:
            raise ValueError(f"EfficientNet: split {split!r} has no images; expected at least 2")
        return torch.cat(found), torch.cat(labels) if labels else None

    def _raw(self, images: Tensor) -> Tensor:
        """Returns the network's features (B, 1280)."""
        net = self.net.to(images.device)
        parts = images.split(500 if images.is_cuda else AT_ONCE)
        with torch.no_grad():
            return torch.cat([net.features(network_input(part, self.size)) for part in parts])

    def _project(self, f: Tensor) -> Tensor:
        """Returns the coordinates of the network's features in the directions, (B, D)."""
        mean, vectors = (self._fitted[key].to(f.device) for key in ("mean", "vectors"))
        return (f - mean) @ vectors


def network_input(images: Tensor, size: int) -> Tensor:
    """Returns what the network reads, (B, 3, size, size), of uint8 images (B, 1 or 3, H, W)."""
    x = images.expand(-1, 3, -1, -1).float()
    x = F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)


def fit(train: Split, test: Split, size: int, classes: int | None) -> Record:
    """Returns "mean", "vectors", "explained", and the classifier's "weight", "bias", "accuracy".

    Args:
        train: Features (N, 1280) and labels (N,), or None.
        test: The same of held-out images, for the accuracy.
        size: The number of directions.
        classes: K, or None for no classifier.
    """
    (f, labels), (g, held_out) = train, test
    mean, vectors, explained = principal(f, size)
    weight, bias, accuracy = f.new_zeros(0, f.shape[1]), f.new_zeros(0), None
    if classes and labels is not None and held_out is not None:
        weight, bias = probe(f, labels, classes)
        hits = F.linear(g, weight, bias).argmax(1) == held_out
        accuracy = hits.double().mean().item()
    directions = {"mean": mean, "vectors": vectors, "explained": explained}
    return {**directions, "weight": weight, "bias": bias, "accuracy": accuracy}
