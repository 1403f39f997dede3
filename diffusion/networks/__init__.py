"""Networks: network(x_t, t, **conditions).

`conditions` names the conditions that a network takes, `null` is the value of ∅ of each of them
that can be forgotten.
"""

from diffusion.networks.classifier import ClassifierNetwork
from diffusion.networks.mlp import MLP
from diffusion.networks.unet import UNet

__all__ = ["MLP", "ClassifierNetwork", "UNet"]
