"""A UNet that also sees a low-resolution image, for super-resolution."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.networks.conditioning.low_resolution import Augmentation, LevelEmbedding, quantized
from diffusion.networks.unet.unet import UNet


class Upsampler(UNet):
    """network(x_t, t, low_res, label, **tokens): a UNet on x_t and low_res as one image.

    low_res is resized bilinearly to x_t's size, half pixels at the edges (`align_corners=False`),
    and joined to x_t along the channels (Nichol & Dhariwal 2021, section 4; ADM, section 5.3; after
    SR3, Saharia et al. 2021). Before, `read` rounds it to 8 bits (GLIDE's code), and adds noise to
    it if there is an augmentation.

    Args:
        in_channels: Channels of x_t, and of low_res.
        out_channels: As for `UNet`; None for in_channels.
        augmentation: Of the low-resolution image, or None.
        **kwargs: As for `UNet`.

    Attributes:
        conditions: "low_res", which has no ∅, "level" if there is an augmentation, and `UNet`'s.
        given: Those of them that are never forgotten.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        augmentation: Augmentation | None = None,
        **kwargs: Any,
    ) -> None:
        out_channels = in_channels if out_channels is None else out_channels
        super().__init__(in_channels=2 * in_channels, out_channels=out_channels, **kwargs)
        self.in_channels, self.augmentation = in_channels, augmentation
        self.given = ("low_res",) if augmentation is None else ("low_res", "level")
        self.conditions = (*self.given, *self.conditions)
        width = self.style.emb_width
        self.level = None if augmentation is None else LevelEmbedding(width // 4, width)

    def read(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns the conditions made of a batch: tokens, low_res as it is given, and its level.

        When it samples, the noise of low_res depends on the samples' "index" and the run's "seed".
        """
        read = super().read(batch)
        if "low_res" not in batch:
            return read
        low = read["low_res"] = quantized(batch["low_res"])
        if self.augmentation is None:
            return read
        if self.training:
            read["low_res"], read["level"] = self.augmentation.train(low)
        else:
            numbers = batch["index"].tolist() if "index" in batch else range(len(low))
            drawn = self.augmentation.sample(low, numbers, batch.get("seed", 0))
            read["low_res"], read["level"] = drawn
        return read

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x_t: Tensor,
        t: Tensor,
        low_res: Tensor,
        label: Tensor | None = None,
        level: Tensor | None = None,
        **tokens: Tensor,
    ) -> Tensor:
        """Returns the raw output for noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.
            low_res: Images (B, in_channels, h, w) of any smaller size, in [−1, 1] before noise.
            label: Classes (B,) int64 in 0 … num_classes; None for ∅ everywhere.
            level: How noisy low_res is, (B,), for a network with an augmentation.
            **tokens: As for `UNet`.
        """
        resized = F.interpolate(low_res.to(x_t.dtype), x_t.shape[2:], mode="bilinear")
        more = 0.0 if self.level is None or level is None else self.level(level)
        return super().forward(torch.cat([x_t, resized], dim=1), t, label, more, **tokens)
