"""CLIP: an encoder of pictures and one of texts (Radford et al. 2021; arXiv 2103.00020)."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.hashing import digest, weights_digest
from diffusion.networks.base import adapt
from diffusion.networks.locked import Locked
from diffusion.networks.photo_tower import PhotoTower
from diffusion.networks.text.base import TextEncoder
from diffusion.networks.unet.classifier_network import MeanPool

LARGEST = 100.0  # e^λ, in CLIP


class Towers(nn.Module):
    """f(x_t, t) and g(c), unit vectors of D numbers, and the inverse temperature e^λ.

    The logits of pictures against texts are e^λ ⟨f, g⟩, with λ = log 1/0.07 at first and at most
    log 100 (section 2.4 and 2.5). t = 0 means the clean picture x_0. Few pairs are soon known by
    heart, and from then on a λ that grows only makes mistakes on others surer: `largest` stops it.

    Args:
        image: Called as network(x_t, t), returns (B, D), such as `ViT`, or `ClassifierNetwork` with
            num_classes D.
        text: The encoder whose pooled vector becomes g, through LayerNorm and a linear map as in
            CLIP. One that is frozen holds no parameters.
        width: D; by default what the image tower says, in `out_channels`.
        hidden: Units of a GELU layer in front of the linear map, which a frozen encoder needs to
            be bent to pictures; None for no such layer.
        largest: The largest e^λ, more than 1.

    Raises:
        ValueError: If D is not known, the tower starts at 0, which has no direction, or e^λ may not
            exceed 1.
    """

    def __init__(
        self,
        image: nn.Module,
        text: TextEncoder,
        width: int | None = None,
        hidden: int | None = None,
        largest: float = LARGEST,
    ) -> None:
        super().__init__()
        if not largest > 1:
            raise ValueError(f"network.largest: {largest}; expected more than 1, 100 as in CLIP")
        self.width = width or adapt(image).out_channels
        if not self.width:
            raise ValueError(
                "network.width: null; expected D, as the image tower has no out_channels"
            )
        if any(isinstance(part, MeanPool) for part in image.modules()):
            raise ValueError(
                "image.pool: mean, which starts at 0 and has no direction there; expected attention"
            )
        self.image, self.text = image, text
        pooled = text.pooled_width
        layers = [] if hidden is None else [nn.Linear(pooled, hidden), nn.GELU()]
        last = nn.Linear(hidden or pooled, self.width, bias=False)
        self.projection = nn.Sequential(nn.LayerNorm(pooled), *layers, last)
        self.bound = math.log(largest)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)).clamp(max=self.bound))

    @property
    def scale(self) -> Tensor:
        """e^λ, shape ()."""
        return self.log_scale.clamp(max=self.bound).exp()

    def embed_image(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns f, (B, D) in float32.

        Args:
            x: Pictures (B, ...).
            t: Their times in 0 … T, shape (B,) on x's device, or () for all.
        """
        if t.ndim == 0:
            t = torch.full(x.shape[:1], int(t), device=x.device)
        return F.normalize(self.image(x, t).float(), dim=1)

    def embed_text(self, values: Mapping[str, Tensor]) -> Tensor:
        """Returns g, (B, D) in float32, of what the encoder's `read` returned.

        Raises:
            ValueError: If the encoder has no pooled vector.
        """
        pooled = self.text(values).pooled
        if pooled is None:
            raise ValueError("text: an encoder without a pooled vector; expected one that has it")
        return F.normalize(self.projection(pooled).float(), dim=1)

    def forward(self, x: Tensor, t: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits e^λ ⟨f, g⟩ of all pictures against all texts, (B, B')."""
        return self.scale * self.embed_image(x, t) @ self.embed_text(values).T


def independent_parts(module: nn.Module) -> frozenset[str]:
    """Returns what a model and its judge must not have in common, each by kind and digest.

    These are text encoders, the image towers of CLIPs, and networks that others are built upon.

    Args:
        module: A network, or anything that holds some.
    """
    found = set[str]()
    for part in module.modules():
        if isinstance(part, TextEncoder):
            found.add(f"the text encoder {type(part).__name__} {digest(part.digest())}")
        elif isinstance(part, Towers):
            found.add(f"the image tower {weights_digest(part.image.state_dict())}")
        if isinstance(part, Locked):  # which may be the image tower of a CLIP
            found.add(f"the image tower {part.mark.removeprefix('base_')}")
        if isinstance(part, Locked | PhotoTower):
            found.add(f"the frozen network {part.mark}")
    return frozenset(found)
