"""Features of a network that has seen photographs, for colour images that are too few for FID."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.hashing import digest, weights_digest
from diffusion.common.progress import bar
from diffusion.common.weights import read
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.efficientnet_lite0 import FEATURES, PACKAGE, Lite0, load
from diffusion.metrics.features.probe import principal, probe
from diffusion.metrics.features.real import kept_at
from diffusion.metrics.real_images import Data, pick

AT_ONCE = 16  # more do not fit a processor's cache, and are slower


class EfficientNet(Extractor):
    """φ(x) = Vᵀ(f(x) − μ): EfficientNet-lite0's 1280 features in their 64 main directions.

    f are the means over the last maps, of the image resized to `size` by antialiased bicubic
    interpolation, with values (v − 127) / 128. μ and V, the first eigenvectors of the covariance,
    are fitted once to the whole training split and stored; so the covariances of some hundred
    images have full rank, and what training images do not vary in is not seen. The logits are those
    of a linear classifier of f that is fitted to the training split's labels. The reference is the
    whole training split: the network has not seen it.

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
    distance = "fd_effnet"
    kernel = "kid_effnet"
    reference = "all"

    def __init__(self, size: int = 96, features: int = 64, root: str = "data") -> None:
        if size < 32 or size % 32:  # elsewhere the padding would depend on who wrote the network
            raise ValueError(f"EfficientNet.size: {size}; expected a multiple of 32")
        if not 1 <= features <= FEATURES:
            raise ValueError(f"EfficientNet.features: {features}; expected 1 … {FEATURES}")
        self.size, self.features, self.root = size, features, root
        self.explained: float | None = None
        self._net: Lite0 | None = None
        self._fitted: dict[str, Tensor] = {}
        self._fingerprint = ""

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Loads the weights, and fits directions and classifier or loads those fitted before.

        Raises:
            FileNotFoundError: If the package cannot be had; names the command that fetches it.
            ValueError: If the images have neither one nor three channels, or are too few.
        """
        if data.shape[0] not in (1, 3):
            raise ValueError(f"EfficientNet: images of {data.shape[0]} channels; expected 1 or 3")
        if self._net is None:
            self._net = load(Path(self.root)).to(memory_format=torch.channels_last)
        key = {
            "weights": PACKAGE.sha256,
            "size": self.size,
            "features": self.features,
            "classes": data.num_classes,
            **{split: data.fingerprint(split) for split in ("train", "test")},
        }
        path = cache / f"effnet-{digest(key)}.pt"
        if path.is_file():
            self._use(read(path, "metrics.cache"))
            return
        # Hooks of an evaluation run in inference mode, whose tensors cannot be trained.
        with torch.inference_mode(False), torch.enable_grad():
            train, test = (self._read(data, split, progress) for split in ("train", "test"))
            self._use(fitted := fit(train, test, self.features, data.num_classes))
        with written_aside(path) as part:
            torch.save(fitted, part)
        for split, (f, _) in {"train": train, "test": test}.items():  # the reference and the floor
            with written_aside(kept_at(data, split, "all", self, cache)) as part:
                torch.save(self._project(f), part)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, D) and logits (B, K) of uint8 images (B, 1 or 3, H, W).

        Without labels K is 0.
        """
        f = self._raw(images)
        fitted = {key: value.to(f.device) for key, value in self._fitted.items()}
        return self._project(f), F.linear(f, fitted["weight"], fitted["bias"])

    @property
    def fingerprint(self) -> str:
        """A hash of the package, the size and all that was fitted; known after `prepare`."""
        return self._fingerprint

    def describe(self) -> dict[str, str | float | None]:
        """Returns what a record of a distance must say about its features."""
        about = {"size": self.size, "directions": self.features, "explained": self.explained}
        return {**super().describe(), **about}

    def _use(self, fitted: dict) -> None:
        self.explained, self.accuracy = fitted["explained"], fitted["accuracy"]
        self._fitted = {k: v for k, v in fitted.items() if isinstance(v, Tensor)}
        about = {"fitted": weights_digest(self._fitted), "size": self.size, "net": PACKAGE.sha256}
        self._fingerprint = digest(about)

    def _read(self, data: Data, split: str, progress: bool) -> tuple[Tensor, Tensor | None]:
        """Returns the 1280 features of a split's images, and their labels if there are any."""
        found, labels = [], []
        with bar("images", progress) as shown:
            task = shown.add_task(f"Features of {split} images, once", total=None)
            for batch in pick(data, split):
                found.append(self._raw(batch["image"]))
                if "label" in batch:
                    labels.append(batch["label"])
                shown.advance(task, len(batch["image"]))
        if not found:
            raise ValueError(f"EfficientNet: split {split!r} has no images; expected at least 2")
        return torch.cat(found), torch.cat(labels) if labels else None

    def _raw(self, images: Tensor) -> Tensor:
        """Returns the network's features (B, 1280)."""
        if self._net is None:
            raise RuntimeError("EfficientNet: no weights; expected `prepare` before")
        net = self._net.to(images.device)
        parts = images.split(500 if images.is_cuda else AT_ONCE)
        with torch.no_grad():
            return torch.cat([net.features(resized(part, self.size)) for part in parts])

    def _project(self, f: Tensor) -> Tensor:
        mean, vectors = self._fitted["mean"].to(f.device), self._fitted["vectors"].to(f.device)
        return (f - mean) @ vectors


def resized(images: Tensor, size: int) -> Tensor:
    """Returns what the network reads, (B, 3, size, size), of uint8 images (B, 1 or 3, H, W)."""
    x = images.expand(-1, 3, -1, -1).float()
    x = F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)


def fit(
    train: tuple[Tensor, Tensor | None],
    test: tuple[Tensor, Tensor | None],
    size: int,
    classes: int | None,
) -> dict:
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
    return {
        "mean": mean,
        "vectors": vectors,
        "explained": explained,
        "weight": weight,
        "bias": bias,
        "accuracy": accuracy,
    }
