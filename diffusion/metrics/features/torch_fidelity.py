"""The features that FID, KID, the Inception score, and precision and recall are defined by.

The networks are torch-fidelity's, which resize as TensorFlow 1 did. Nothing is downloaded.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffusion.common.hashing import weights_digest
from diffusion.common.weights import read
from diffusion.metrics.features.base import Extractor, check_colours
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

    @abstractmethod
    def source(self) -> tuple[str, Callable[[str], nn.Module]]:
        """Returns where the weights are published, and what makes the network of their file."""

    @cached_property
    def net(self) -> nn.Module:
        """The network, loaded when it is asked for first.

        Raises:
            FileNotFoundError: If there is no such file; names the command that fetches it.
            ValueError: If the file holds something else.
        """
        (url, build), key = self.source(), f"{type(self).__name__}.weights"
        default = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
        path = default if self.weights is None else Path(self.weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"{key}: {path} does not exist; expected {self.what}; get it with "
                f"`curl -L --create-dirs -o {path} {url}`"
            )
        try:
            # torch-fidelity unpickles with weights_only=False: refuse anything but tensors first.
            self.fingerprint = weights_digest(read(path, key))
            with torch.random.fork_rng(devices=[]):  # it draws weights, and then replaces them
                return build(str(path))
        except Exception as error:  # what a broken file raises depends on where it is broken
            raise ValueError(
                f"{key}: {path} is broken or another's; expected {self.what}"
            ) from error

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Loads the weights; see `net`.

        Raises:
            ValueError: If the images have neither one nor three channels.
        """
        check_colours(self, data)
        self.net.eval()  # loads it, before any time is spent on images

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, D) and logits (B, K) of uint8 images (B, 1 or 3, H, W)."""
        net = self.net.to(images.device)
        with torch.no_grad():
            parts = [net(part) for part in images.expand(-1, 3, -1, -1).split(50)]
        features, *logits = (torch.cat(found) for found in zip(*parts))
        return features, logits[0] if logits else features[:, :0]


class Inception(Published):
    """Inception-v3 of the FID paper (Heusel et al. 2017), TensorFlow's weights of 2015-12-05.

    Features are the 2048 of the last pooling, logits the 1008 without bias.
    """

    name, distance, kernel, score = "inception", "fid", "kid", "is"
    what = "the FID network"

    def source(self) -> tuple[str, Callable[[str], nn.Module]]:
        """Returns torch-fidelity's Inception-v3."""
        from torch_fidelity import feature_extractor_inceptionv3 as library

        layers = ["2048", "logits_unbiased"]
        network = partial(library.FeatureExtractorInceptionV3, "inception-v3-compat", layers)
        return library.URL_INCEPTION_V3, network


class VGG16(Published):
    """The 4096 activations after the second fully connected layer (Kynkäänniemi et al. 2019).

    The weights are torchvision's of ImageNet. The authors' own are another training of the same
    network, so figures are near theirs and not the same. It has no logits of its own: (B, 0).
    """

    name = "vgg16"
    what = "torchvision's VGG16"

    def source(self) -> tuple[str, Callable[[str], nn.Module]]:
        """Returns torch-fidelity's VGG16, with torchvision's weights."""
        from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
        from torchvision.models import VGG16_Weights

        def network(path: str) -> nn.Module:
            return FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=path)

        return VGG16_Weights.IMAGENET1K_V1.url, network
