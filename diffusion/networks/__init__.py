"""Networks: network(x_t, t, **conditions).

`conditions` names the conditions that a network takes, `null` is the value of ∅ of each of them
that can be forgotten.
"""

from diffusion.networks.conditioning.low_resolution import Augmentation
from diffusion.networks.conditioning.tokens import Stream
from diffusion.networks.linear_unet import LinearUNet
from diffusion.networks.mlp import MLP
from diffusion.networks.text.base import TextEncoder, Tokens
from diffusion.networks.text.hugging_face import HuggingFace
from diffusion.networks.text.minilm import MiniLM
from diffusion.networks.towers import Towers
from diffusion.networks.transformer import TextTransformer
from diffusion.networks.unet.classifier_network import ClassifierNetwork
from diffusion.networks.unet.inpainter import Inpainter
from diffusion.networks.unet.unet import UNet
from diffusion.networks.unet.upsampler import Upsampler
from diffusion.networks.vit import ViT

__all__ = [
    "MLP",
    "Augmentation",
    "ClassifierNetwork",
    "HuggingFace",
    "Inpainter",
    "LinearUNet",
    "MiniLM",
    "Stream",
    "TextEncoder",
    "TextTransformer",
    "Tokens",
    "Towers",
    "UNet",
    "Upsampler",
    "ViT",
]
