"""The features that improved precision and recall were published with."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.common.hashing import weights_digest
from diffusion.common.weights import read
from diffusion.metrics.features.base import Extractor, published
from diffusion.metrics.real_images import Data


class VGG16(Extractor):
    """The 4096 activations after the second fully connected layer (Kynkäänniemi et al. 2019).

    The network is torch-fidelity's: torchvision's ImageNet weights, images resized to 224² as
    TensorFlow 1 did; grey images get three equal channels. The authors' own weights are another
    training of the same network, so figures are near theirs and not the same. Nothing is
    downloaded. It has no logits of its own: (B, 0).

    Args:
        weights: The weights' file; by default where torchvision itself keeps it.
    """

    name = "vgg16"
    distance = "fd_vgg16"
    kernel = "kid_vgg16"
    reference = "all"  # the network has not seen the data

    def __init__(self, weights: str | None = None) -> None:
        self.weights = weights
        self._net: Any = None
        self._fingerprint = ""

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Loads the weights.

        Raises:
            FileNotFoundError: If there is no such file; names the command that fetches it.
            ValueError: If the file holds something else, or if the images have neither one nor
                three channels.
        """
        if data.shape[0] not in (1, 3):
            raise ValueError(f"VGG16: images have {data.shape[0]} channels, expected 1 or 3")
        if self._net is not None:
            return
        from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
        from torchvision.models import VGG16_Weights

        url = VGG16_Weights.IMAGENET1K_V1.url
        path = published("VGG16.weights", self.weights, url, "torchvision's VGG16")
        try:
            # torch-fidelity unpickles with weights_only=False: refuse anything but tensors first.
            state = read(path, "VGG16.weights")
            with torch.random.fork_rng(devices=[]):  # it draws weights, and then replaces them
                self._net = FeatureExtractorVGG16(
                    "vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path)
                )
        except Exception as error:  # what a broken file raises depends on where it is broken
            raise ValueError(
                f"VGG16.weights: {path} is broken or another's, expected torchvision's VGG16"
            ) from error
        self._fingerprint = weights_digest(state)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, 4096) and (B, 0) of uint8 images (B, 1 or 3, H, W)."""
        net = self._net.to(images.device)
        with torch.no_grad():
            parts = [net(part)[0] for part in images.expand(-1, 3, -1, -1).split(50)]
        features = torch.cat(parts)
        return features, features[:, :0]

    @property
    def fingerprint(self) -> str:
        """A hash of the weights; known after `prepare`."""
        return self._fingerprint
