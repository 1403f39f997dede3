"""A UNet that also sees what is known of the image, for inpainting."""

from typing import Any

from diffusion.networks.conditioning.known import Known
from diffusion.networks.unet.unet import UNet


class Inpainter(UNet):
    """network(x_t, t, known, mask, label, **tokens): a `UNet` whose input is `Known` (GLIDE).

    The weights of the C + 1 new channels start at zero, so that it starts as the UNet whose weights
    it is given (Nichol et al. 2021, "Image inpainting"; https://arxiv.org/abs/2112.10741). m = 0
    everywhere is inpainting without anything known, that is drawing; it is what a batch without
    "mask" means, unless it has an "image" to learn from.

    Args:
        rectangles: As for `Known`.
        hidden: As for `Known`.
        **kwargs: As for `UNet`.
    """

    def __init__(self, rectangles: int = 3, hidden: float = 0.1, **kwargs: Any) -> None:
        super().__init__(inputs=[Known(rectangles, hidden)], **kwargs)
