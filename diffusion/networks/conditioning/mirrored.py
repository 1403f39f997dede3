"""Whether a picture is its mirror image: augmentation that does not show in what is drawn."""

from collections.abc import Mapping

from torch import Tensor

from diffusion.networks.conditioning.base import Conditioner


class Mirrored(Conditioner):
    """A channel of ones where the picture was mirrored, of zeros where it was not.

    With `data.flip` a network that is not told learns mirror images as if they were pictures, and
    draws shoes to both sides. Told, it learns from them and draws none, as what draws says nothing,
    which is 0: the non-leaky augmentation of Karras et al. 2022 (EDM, appendix F.2), of one kind.
    The condition is "mirrored" (B,), 0 or 1; it is never forgotten, and 0 where it is missing.
    """

    keys = required = ("mirrored",)

    def channels(self, image: int) -> int:
        """See `Conditioner`."""
        return 1

    def planes(self, x_t: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """See `Conditioner`."""
        told = x_t.new_zeros(len(x_t)) if (found := values.get("mirrored")) is None else found
        return told.to(x_t)[:, None, None, None].expand_as(x_t[:, :1])
