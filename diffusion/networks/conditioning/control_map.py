"""A picture that says where: edges, a silhouette, colours."""

from diffusion.networks.conditioning.base import Conditioner


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
