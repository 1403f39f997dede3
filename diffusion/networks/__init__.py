"""Networks: network(x_t, t, **conditions), and `null`, the value of ∅ of each condition."""

from diffusion.networks.mlp import MLP
from diffusion.networks.unet import UNet

__all__ = ["MLP", "UNet"]
