"""What is known of a picture as condition, for inpainting (GLIDE, Nichol et al. 2021)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.base import Conditioner
from diffusion.noise import Purpose, SeededNoise, noise_of
from diffusion.spec import Batch


class Known(Conditioner):
    """m · known and m, which are joined to x_t along the channels: [x_t, m · known, m].

    "known" are images in [−1, 1], "mask" is m (B, 1, H, W): 1 where they are known, 0 where
    something is to be drawn. Without a mask nothing is known, and everything drawn.

    Training erases parts of its images, which `read` chooses: 1 … `rectangles` of them, as many as
    that with equal probability, their sides 1 … H and 1 … W and then their places uniform; or, for
    a share `hidden` of the images, everything. The paper says only "random regions". They are
    chosen by the samples' noise, so evaluation erases the same every time.

    Args:
        rectangles: The most rectangles that training erases from one image, at least 1.
        hidden: The share of training images of which nothing is left, 0 … 1.

    Raises:
        ValueError: If a number is out of its range.
    """

    keys = required = ("known", "mask")
    starts_at_zero = True

    def __init__(self, rectangles: int = 3, hidden: float = 0.1) -> None:
        super().__init__()
        check_counts("network", rectangles=rectangles)
        if not 0 <= hidden <= 1:
            raise ValueError(f"network.hidden: {hidden}; expected 0 … 1")
        self.rectangles, self.hidden = rectangles, hidden

    def channels(self, image: int) -> int:
        """See `Conditioner`."""
        return image + 1

    def planes(self, x_t: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """See `Conditioner`; what the mask hides is not looked at."""
        known, mask = values.get("known"), values.get("mask")
        mask = torch.zeros_like(x_t[:, :1]) if mask is None else mask.to(x_t)
        seen = torch.zeros_like(x_t) if known is None else known.to(x_t) * mask
        return torch.cat([seen, mask], dim=1)

    def read(self, batch: Batch, train: bool) -> dict[str, Tensor]:
        """See `Conditioner`.

        "known" is image · m, unless the batch has it; m is the batch's "mask", or else chosen here.
        """
        read = super().read(batch, train)
        if "image" not in batch or "known" in batch:
            return read
        image = batch["image"]
        if "mask" not in read:
            height, width = image.shape[2:]
            noise = noise_of(batch, image).of(Purpose.MASK)
            read["mask"] = self.masks(height, width, noise).to(image)
        return {**read, "known": image * read["mask"]}

    def masks(self, height: int, width: int, noise: SeededNoise) -> Tensor:
        """Returns random masks, (B, 1, height, width) bool, false where erased.

        Args:
            height: H.
            width: W.
            noise: Of B images.
        """

        def covered(side: int) -> Tensor:
            """Which of the pixels 0 … side − 1 intervals cover, (B, rectangles, side)."""
            length, place = noise.uniform((2, self.rectangles, 1)).unbind(1)
            length = 1 + (length * side).long()
            first = (place * (side - length + 1)).long()
            i = torch.arange(side, device=length.device)
            return (first <= i) & (i < first + length)

        boxes = covered(height)[..., :, None] & covered(width)[..., None, :]
        number = torch.arange(self.rectangles, device=boxes.device)
        used = number <= noise.integers(self.rectangles, (1,))
        erased = (boxes & used[..., None, None]).any(dim=1, keepdim=True)
        everything = noise.uniform() < self.hidden
        return ~(erased | everything[:, None, None, None])


def resize_known(batch: Batch, size: tuple[int, int]) -> Batch:
    """Returns a batch whose "known" and "mask", where it has them, are of a smaller size (H, W).

    "known" is averaged; a pixel of "mask" is 1 where all that it stands for are known.
    """
    smaller = dict(batch)
    if "known" in batch:
        smaller["known"] = F.adaptive_avg_pool2d(batch["known"], size)
    if "mask" in batch:
        smaller["mask"] = 1 - F.adaptive_max_pool2d(1 - batch["mask"], size)
    return smaller
