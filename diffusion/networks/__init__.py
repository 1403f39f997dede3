"""Networks: network(x_t, t, **conditions).

`conditions` names the conditions that a network takes, `null` is the value of ∅ of each of them
that can be forgotten.
"""

from diffusion.networks.augmentation import Augmentation
from diffusion.networks.classifier import ClassifierNetwork
from diffusion.networks.clip import Towers
from diffusion.networks.hugging_face import HuggingFace
from diffusion.networks.inpainter import Inpainter
from diffusion.networks.linear_unet import LinearUNet
from diffusion.networks.minilm import MiniLM
from diffusion.networks.mlp import MLP
from diffusion.networks.streams import Stream
from diffusion.networks.text import TextEncoder, Tokens
from diffusion.networks.transformer import TextTransformer
from diffusion.networks.unet import UNet
from diffusion.networks.upsampler import Upsampler
from diffusion.networks.vision_transformer import ViT

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
