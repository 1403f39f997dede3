# pyright: strict
"""A picture that says where: edges, a silhouette, colours."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.networks.conditioning.base import Conditioner
from diffusion.spec import Batch


class ControlMap(Conditioner):
    """The condition NAME (B, c, H, W) in [0, 1], and how strongly it is obeyed, NAME_strength.

    The control is part of the task: training and guidance forget the other conditions, not this
    one. NAME_strength (B, 2) is s and r of each sample, by which residual i of 0 … n is multiplied:
    s r^(12 (1 − i/n)); (1, 1) where it is missing. With a strength and no control the network is
    its base. See `ControlStrength`.

    Args:
        name: NAME.
        channels: c.
    """

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.name, self.planes_of = name, channels
        self.strength = f"{name}_strength"
        self.keys = self.required = (name, self.strength)

    def control(self, values: Mapping[str, Tensor], x_t: Tensor) -> Tensor | None:
        """Returns the control of images x_t (B, C, H, W); None where there is a strength alone.

        Args:
            values: The network's conditions.
            x_t: The images.

        Raises:
            ValueError: If it is missing, or of other channels or another size.
        """
        found = values.get(self.name)
        if found is None and self.strength in values:
            return None
        wanted = (len(x_t), self.planes_of, *x_t.shape[2:])
        if found is None or found.shape != wanted:
            shape = "missing" if found is None else tuple(found.shape)
            raise ValueError(f"{self.name}: {shape}; expected a control for each sample, {wanted}")
        return found

    def resized(self, batch: Batch, size: tuple[int, int]) -> Batch:
        """See `Conditioner`; means of what becomes one pixel, and of a drawing lines.

        A control of zeros and ones alone is a drawing: a line of one pixel is 1/f of a pixel wide
        where f x f become one, and its mean a is made min(1, f a), so that it stays a line.
        """
        if not isinstance(control := batch.get(self.name), Tensor):
            return batch
        means, f = F.interpolate(control, size, mode="area"), control.shape[-1] / size[1]
        drawing = ((control == 0) | (control == 1)).all()
        return {**batch, self.name: torch.where(drawing, (max(f, 1.0) * means).clamp(max=1), means)}
