"""A UNet that also sees a low-resolution image, for super-resolution."""

from typing import Any

from diffusion.networks.conditioning.low_resolution import Augmentation, LowResolution
from diffusion.networks.unet.unet import UNet


class Upsampler(UNet):
    """network(x_t, t, low_res, label, **tokens): a `UNet` whose input is `LowResolution`.

    Args:
        augmentation: Of the low-resolution image, or None.
        **kwargs: As for `UNet`.
    """

    def __init__(self, augmentation: Augmentation | None = None, **kwargs: Any) -> None:
        super().__init__(inputs=[LowResolution(augmentation)], **kwargs)
