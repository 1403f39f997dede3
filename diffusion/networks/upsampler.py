"""A UNet that also sees a low-resolution image, for super-resolution."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.networks.unet import UNet


class Upsampler(UNet):
    """network(x_t, t, low_res, label): a UNet on x_t and low_res, resized to x_t's size, as one.

    low_res is resized bilinearly, half pixels at the edges (`align_corners=False`), and joined to
    x_t along the channels (Nichol & Dhariwal 2021, section 4; ADM, section 5.3; after SR3, Saharia
    et al. 2021).

    Args:
        in_channels: Channels of x_t, and of low_res.
        out_channels: As for `UNet`; None for in_channels.
        **kwargs: As for `UNet`.

    Attributes:
        conditions: "low_res", which has no ∅, and "label" if there are classes.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int | None = None, **kwargs: Any
    ) -> None:
        out_channels = in_channels if out_channels is None else out_channels
        super().__init__(in_channels=2 * in_channels, out_channels=out_channels, **kwargs)
        self.in_channels = in_channels
        self.conditions = ("low_res", *self.conditions)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_t: Tensor, t: Tensor, low_res: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """Returns the raw output for noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.
            low_res: Images (B, in_channels, h, w) of any smaller size, in [−1, 1].
            label: Classes (B,) int64 in 0 … num_classes; None for ∅ everywhere.
        """
        resized = F.interpolate(low_res.to(x_t.dtype), x_t.shape[2:], mode="bilinear")
        return super().forward(torch.cat([x_t, resized], dim=1), t, label)
