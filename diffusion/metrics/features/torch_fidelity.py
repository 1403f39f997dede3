"""The features that FID, KID and the Inception score are defined by."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.common.hashing import weights_digest
from diffusion.common.weights import read
from diffusion.metrics.features.base import Extractor, published
from diffusion.metrics.real_images import Data


class Inception(Extractor):
    """Inception-v3 of the FID paper (Heusel et al. 2017), TensorFlow's weights of 2015-12-05.

    Features are the 2048 of the last pooling, logits the 1008 without bias. The network is
    torch-fidelity's, which resizes to 299² as TensorFlow 1 did; grey images get three equal
    channels. Nothing is downloaded.

    Args:
        weights: The weights' file; by default where torch-fidelity itself keeps it.
    """

    name = "inception"
    distance = "fid"
    kernel = "kid"
    score = "is"
    reference = "all"  # the network has not seen the data, and papers compare with all of it

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
            raise ValueError(f"Inception: images have {data.shape[0]} channels, expected 1 or 3")
        if self._net is not None:
            return
        from torch_fidelity.feature_extractor_inceptionv3 import (
            URL_INCEPTION_V3,
            FeatureExtractorInceptionV3,
        )

        path = published("Inception.weights", self.weights, URL_INCEPTION_V3, "the FID network")
        try:
            # torch-fidelity unpickles with weights_only=False: refuse anything but tensors first.
            state = read(path, "Inception.weights")
            with torch.random.fork_rng(devices=[]):  # it draws weights, and then replaces them
                self._net = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048", "logits_unbiased"], str(path)
                )
        except Exception as error:  # what a broken file raises depends on where it is broken
            raise ValueError(
                f"Inception.weights: {path} is broken or another's, expected the FID network's"
            ) from error
        self._fingerprint = weights_digest(state)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (B, 2048) and logits (B, 1008) of uint8 images (B, 1 or 3, H, W)."""
        net = self._net.to(images.device)
        rgb = images.expand(-1, 3, -1, -1)
        with torch.no_grad():
            parts = [net(part) for part in rgb.split(50)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    @property
    def fingerprint(self) -> str:
        """A hash of the weights; known after `prepare`."""
        return self._fingerprint
