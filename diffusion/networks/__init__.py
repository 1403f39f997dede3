"""Networks: network(x_t, t, **conditions), and where their conditions come from."""

from diffusion.networks.base import ImageTower, Network, adapt
from diffusion.networks.captioning.caption_network import CaptionNetwork
from diffusion.networks.captioning.prompt_network import PromptNetwork
from diffusion.networks.captioning.search import Beam, Sampling, Search
from diffusion.networks.conditioning.base import Conditioner
from diffusion.networks.conditioning.control_map import ControlMap
from diffusion.networks.conditioning.image_embedding import ImageEmbedding, image_embeddings
from diffusion.networks.conditioning.inpainting import Known
from diffusion.networks.conditioning.label import Label
from diffusion.networks.conditioning.low_resolution import Augmentation, Blur, LowResolution
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.networks.conditioning.tokens import Tokens
from diffusion.networks.control.control_net import ControlNet
from diffusion.networks.control.hint_encoder import Hint
from diffusion.networks.identity.face_embedding import FaceEmbedding
from diffusion.networks.identity.face_finder import FaceFinder
from diffusion.networks.identity.projected_discriminator import ProjectedDiscriminator
from diffusion.networks.identity.swap_generator import SwapGenerator
from diffusion.networks.linear_unet import LinearUNet
from diffusion.networks.locked import Locked
from diffusion.networks.mlp import MLP, PixelMLP
from diffusion.networks.photo_tower import PhotoTower
from diffusion.networks.prior import EmbeddingPrior
from diffusion.networks.text.base import TextEncoder
from diffusion.networks.text.hashed_words import BagOfWords
from diffusion.networks.text.hugging_face import HuggingFace
from diffusion.networks.text.minilm import MiniLM
from diffusion.networks.text.word_vectors import WordVectors
from diffusion.networks.towers import Towers
from diffusion.networks.transformer import TextTransformer
from diffusion.networks.unet.classifier_network import ClassifierNetwork
from diffusion.networks.unet.token_attention import Stream
from diffusion.networks.unet.unet import Inpainter, UNet, Upsampler
from diffusion.networks.vit import ViT

__all__ = [
    "MLP",
    "Augmentation",
    "BagOfWords",
    "Beam",
    "Blur",
    "CaptionNetwork",
    "ClassifierNetwork",
    "Conditioner",
    "ControlMap",
    "ControlNet",
    "EmbeddingPrior",
    "Encoding",
    "FaceEmbedding",
    "FaceFinder",
    "Hint",
    "HuggingFace",
    "ImageEmbedding",
    "ImageTower",
    "Inpainter",
    "Known",
    "Label",
    "LinearUNet",
    "Locked",
    "LowResolution",
    "MiniLM",
    "Network",
    "PhotoTower",
    "PixelMLP",
    "ProjectedDiscriminator",
    "PromptNetwork",
    "Sampling",
    "Search",
    "Stream",
    "SwapGenerator",
    "TextEncoder",
    "TextTransformer",
    "TokenEncoder",
    "Tokens",
    "Towers",
    "UNet",
    "Upsampler",
    "ViT",
    "WordVectors",
    "adapt",
    "image_embeddings",
]
