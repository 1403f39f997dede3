"""A UNet that also sees what is known of the image, for inpainting."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.networks.unet.unet import UNet


class Inpainter(UNet):
    """network(x_t, t, known, mask, label, **tokens): a UNet on [x_t, m · known, m] (GLIDE).

    2 C + 1 channels come in. The weights of the C + 1 new ones start at zero, so that the network
    starts as the UNet whose weights it is given (Nichol et al. 2021, "Image inpainting";
    https://arxiv.org/abs/2112.10741). m = 0 everywhere is inpainting without anything known, that
    is drawing; it is what a batch without "mask" means, unless it has an "image" to learn from.

    Training erases parts of its images, which `read` chooses: 1 … `rectangles` of them, as many as
    that with equal probability, their sides 1 … H and 1 … W and then their places uniform; or, for
    a share `hidden` of the images, everything. The paper says only "random regions". A network
    that evaluates (`eval`) chooses the same masks every time, by the batch's first "index".

    Args:
        in_channels: Channels of x_t, and of known.
        out_channels: As for `UNet`; None for in_channels.
        rectangles: The most rectangles that training erases from one image, at least 1.
        hidden: The share of training images of which nothing is left, 0 … 1.
        **kwargs: As for `UNet`.

    Attributes:
        conditions: "known" and "mask", which are never forgotten, and `UNet`'s.
        given: Those that are never forgotten.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        rectangles: int = 3,
        hidden: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if rectangles < 1:
            raise ValueError(f"rectangles={rectangles}: expected at least 1")
        if not 0 <= hidden <= 1:
            raise ValueError(f"hidden={hidden}: expected 0 … 1")
        out_channels = in_channels if out_channels is None else out_channels
        super().__init__(in_channels=2 * in_channels + 1, out_channels=out_channels, **kwargs)
        self.in_channels, self.rectangles, self.hidden = in_channels, rectangles, hidden
        self.given = ("known", "mask")
        self.conditions = (*self.given, *self.conditions)
        nn.init.zeros_(self.conv_in.weight[:, in_channels * self.patch**2 :].data)

    def read(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns the conditions made of a batch: tokens, and what is left of "image".

        "known" is image · m, unless the batch has it; m is the batch's "mask", or else chosen here,
        while training with PyTorch's global generator on the CPU.
        """
        read = super().read(batch)
        if "image" not in batch or "known" in batch:
            return read
        image = batch["image"]
        if "mask" not in batch:
            first = int(batch["index"][0]) if "index" in batch else 0
            generator = None if self.training else torch.Generator().manual_seed(first)
            n, _, height, width = image.shape
            chosen = masks(n, height, width, self.rectangles, self.hidden, generator)
            read["mask"] = chosen.to(image)
        read["known"] = image * read.get("mask", batch.get("mask"))
        return read

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x_t: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        **tokens: Tensor,
    ) -> Tensor:
        """Returns the raw output for noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.
            label: Classes (B,) int64 in 0 … num_classes; None for ∅ everywhere.
            known: Images (B, in_channels, H, W) in [−1, 1]; what the mask hides is not looked at.
            mask: (B, 1, H, W), 1 where known, 0 where not; None for 0 everywhere.
            **tokens: As for `UNet`.
        """
        mask = torch.zeros_like(x_t[:, :1]) if mask is None else mask.to(x_t)
        seen = torch.zeros_like(x_t) if known is None else known.to(x_t) * mask
        return super().forward(torch.cat([x_t, seen, mask], dim=1), t, label, **tokens)


def masks(
    n: int,
    height: int,
    width: int,
    rectangles: int,
    hidden: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns n random masks, (n, 1, height, width) bool on the CPU, false where erased.

    Args:
        n: How many.
        height: H.
        width: W.
        rectangles: The most rectangles that are erased from one; at least one is.
        hidden: The share that is erased altogether.
        generator: Of the random numbers; PyTorch's own by default.
    """

    def covered(side: int) -> Tensor:
        """Which of the pixels 0 … side − 1 intervals cover, (n, rectangles, side)."""
        length, place = torch.rand(2, n, rectangles, 1, generator=generator)
        length = 1 + (length * side).long()
        first = (place * (side - length + 1)).long()
        i = torch.arange(side)
        return (first <= i) & (i < first + length)

    boxes = covered(height)[..., :, None] & covered(width)[..., None, :]
    count = torch.randint(1, rectangles + 1, (n, 1), generator=generator)
    used = torch.arange(rectangles) < count
    erased = (boxes & used[..., None, None]).any(dim=1, keepdim=True)
    everything = torch.rand(n, generator=generator) < hidden
    return ~(erased | everything[:, None, None, None])
