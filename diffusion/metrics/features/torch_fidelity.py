"""The features that FID, KID, the Inception score, and precision and recall are defined by.

The networks are torch-fidelity's, which resize as TensorFlow 1 did; grey images get three equal
channels. Nothing is downloaded.
"""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffusion.common.hashing import weights_digest
from diffusion.common.weights import read
from diffusion.metrics.features.base import Extractor, published
from diffusion.metrics.real_images import Data


class Published(Extractor):
    """A network of torch-fidelity with published weights.

    Args:
        weights: The weights' file; by default where the library that publishes them keeps it.

    Attributes:
        what: The network, for errors.
    """

    reference = "all"  # the network has not seen the data, and papers compare with all of it
    what: ClassVar[str]

    def __init__(self, weights: str | None = None) -> None:
        self.weights = weights
        self._net: nn.Module | None = None
        self._fingerprint = ""

    @abstractmethod
    def address(self) -> str:
        """Returns where the weights are published."""

    @abstractmethod
    def build(self, path: Path) -> nn.Module:
        """Returns the network with the weights of a file."""

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Loads the weights.

        Raises:
            FileNotFoundError: If there is no such file; names the command that fetches it.
            ValueError: If the file holds something else, or if the images have neither one nor
                three channels.
        """
        name = type(self).__name__
        if data.shape[0] not in (1, 3):
            raise ValueError(f"{name}: images of {data.shape[0]} channels; expected 1 or 3")
        if self._net is not None:
            return
        path = published(f"{name}.weights", self.weights, self.address(), self.what)
        try:
            # torch-fidelity unpickles with weights_only=False: refuse anything but tensors first.
            state = read(path, f"{name}.weights")
            with torch.random.fork_rng(devices=[]):  # it draws weights, and then replaces them
                self._net = self.build(path)
        except Exception as error:  # what a broken file raises depends on where it is broken
            raise ValueError(
                f"{name}.weights: {path} is broken or another's; expected {self.what}"
            ) from error
        self._fingerprint = weights_digest(state)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, D) and logits (B, K) of uint8 images (B, 1 or 3, H, W)."""
        if self._net is None:
            raise RuntimeError(f"{type(self).__name__}: no weights; expected `prepare` before")
        net = self._net.to(images.device)
        with torch.no_grad():
            parts = [net(part) for part in images.expand(-1, 3, -1, -1).split(50)]
        features, *logits = (torch.cat(found) for found in zip(*parts))
        return features, logits[0] if logits else features[:, :0]

    @property
    def fingerprint(self) -> str:
        """A hash of the weights; known after `prepare`."""
        return self._fingerprint


class Inception(Published):
    """Inception-v3 of the FID paper (Heusel et al. 2017), TensorFlow's weights of 2015-12-05.

    Features are the 2048 of the last pooling, logits the 1008 without bias.
    """

    name, distance, kernel, score = "inception", "fid", "kid", "is"
    what = "the FID network"

    def address(self) -> str:
        """Returns where torch-fidelity publishes the weights."""
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        return URL_INCEPTION_V3

    def build(self, path: Path) -> nn.Module:
        """Returns torch-fidelity's Inception-v3."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        layers = ["2048", "logits_unbiased"]
        return FeatureExtractorInceptionV3("inception-v3-compat", layers, str(path))


class VGG16(Published):
    """The 4096 activations after the second fully connected layer (Kynkäänniemi et al. 2019).

    The weights are torchvision's of ImageNet. The authors' own are another training of the same
    network, so figures are near theirs and not the same. It has no logits of its own: (B, 0).
    """

    name, distance, kernel = "vgg16", "fd_vgg16", "kid_vgg16"
    what = "torchvision's VGG16"

    def address(self) -> str:
        """Returns where torchvision publishes the weights."""
        from torchvision.models import VGG16_Weights

        return VGG16_Weights.IMAGENET1K_V1.url

    def build(self, path: Path) -> nn.Module:
        """Returns torch-fidelity's VGG16."""
        from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

        layers, weights = ["fc2_relu"], str(path)
        return FeatureExtractorVGG16("vgg16", layers, feature_extractor_weights_path=weights)
