"""Networks: network(x_t, t, **conditions), and where their conditions come from."""

from diffusion.networks.adapter.instant_id import InstantID as InstantID
from diffusion.networks.adapter.ip_adapter import IPAdapter as IPAdapter
from diffusion.networks.base import ImageTower as ImageTower, Network as Network, adapt as adapt
from diffusion.networks.captioning.caption_network import CaptionNetwork as CaptionNetwork
from diffusion.networks.captioning.counted_colours import CountedColours as CountedColours
from diffusion.networks.captioning.prompt_network import PromptNetwork as PromptNetwork
from diffusion.networks.captioning.search import (
    Beam as Beam,
    Sampling as Sampling,
    Search as Search,
)
from diffusion.networks.conditioning.base import Conditioner as Conditioner
from diffusion.networks.conditioning.control_map import ControlMap as ControlMap
from diffusion.networks.conditioning.identity_tokens import (
    IdentityTokens as IdentityTokens,
    ResampledIdentity as ResampledIdentity,
    identity_tokens as identity_tokens,
)
from diffusion.networks.conditioning.image_embedding import (
    ImageEmbedding as ImageEmbedding,
    image_embeddings as image_embeddings,
)
from diffusion.networks.conditioning.inpainting import Known as Known
from diffusion.networks.conditioning.label import Label as Label
from diffusion.networks.conditioning.low_resolution import (
    Augmentation as Augmentation,
    Blur as Blur,
    LowResolution as LowResolution,
)
from diffusion.networks.conditioning.mirrored import Mirrored as Mirrored
from diffusion.networks.conditioning.token_encoder import (
    Encoding as Encoding,
    TokenEncoder as TokenEncoder,
)
from diffusion.networks.conditioning.tokens import Tokens as Tokens
from diffusion.networks.control.control_net import ControlNet as ControlNet
from diffusion.networks.control.hint_encoder import Hint as Hint
from diffusion.networks.dit import DiT as DiT
from diffusion.networks.identity.face_embedding import FaceEmbedding as FaceEmbedding
from diffusion.networks.identity.face_finder import FaceFinder as FaceFinder
from diffusion.networks.identity.projected_discriminator import (
    ProjectedDiscriminator as ProjectedDiscriminator,
)
from diffusion.networks.identity.swap_generator import SwapGenerator as SwapGenerator
from diffusion.networks.locked import Locked as Locked
from diffusion.networks.mlp import MLP as MLP, PixelMLP as PixelMLP
from diffusion.networks.photo_tower import PhotoTower as PhotoTower
from diffusion.networks.prior import EmbeddingPrior as EmbeddingPrior
from diffusion.networks.text.base import TextEncoder as TextEncoder
from diffusion.networks.text.hashed_words import BagOfWords as BagOfWords
from diffusion.networks.text.hugging_face import HuggingFace as HuggingFace
from diffusion.networks.text.minilm import MiniLM as MiniLM
from diffusion.networks.text.word_vectors import WordVectors as WordVectors
from diffusion.networks.towers import Towers as Towers
from diffusion.networks.transformer import TextTransformer as TextTransformer
from diffusion.networks.unet.classifier_network import ClassifierNetwork as ClassifierNetwork
from diffusion.networks.unet.linear_unet import LinearUNet as LinearUNet
from diffusion.networks.unet.token_attention import Stream as Stream
from diffusion.networks.unet.unet import (
    Inpainter as Inpainter,
    UNet as UNet,
    Upsampler as Upsampler,
)
from diffusion.networks.vit import ViT as ViT
