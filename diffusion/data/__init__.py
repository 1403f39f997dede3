"""Data modules: pictures and points to learn, in batches that any number of processes agree on."""

from diffusion.data.avatars import Avatars
from diffusion.data.base import Images
from diffusion.data.binary import BinaryDigits, Heartbeat
from diffusion.data.captions.alt_text import AltText
from diffusion.data.captions.base import CaptionSource
from diffusion.data.captions.caption_file import CaptionFile
from diffusion.data.cifar10 import CIFAR10
from diffusion.data.controls.base import Control
from diffusion.data.controls.beside import Beside
from diffusion.data.controls.canny import Canny
from diffusion.data.controls.colour_blocks import ColourBlocks
from diffusion.data.controls.drawn import Drawn
from diffusion.data.controls.low_pass import LowPass
from diffusion.data.controls.outline import Outline
from diffusion.data.controls.silhouette import Silhouette
from diffusion.data.digits import Digits
from diffusion.data.downloaded import Downloaded
from diffusion.data.emoji import Emoji
from diffusion.data.identities.base import Identities
from diffusion.data.identities.faces import Faces
from diffusion.data.identities.identity_folder import IdentityFolder
from diffusion.data.identities.key_points import KeyPoints
from diffusion.data.image_folder import ImageFolder, Upsampling
from diffusion.data.image_text import ImageText
from diffusion.data.mnist import MNIST, FashionMNIST
from diffusion.data.sets import ImageSet, Memory, Versions
from diffusion.data.synthetic.circles import Circles
from diffusion.data.synthetic.swiss_roll import SwissRoll
from diffusion.data.synthetic.tree import Tree

__all__ = [
    "CIFAR10",
    "MNIST",
    "AltText",
    "Avatars",
    "Beside",
    "BinaryDigits",
    "Canny",
    "CaptionFile",
    "CaptionSource",
    "Circles",
    "ColourBlocks",
    "Control",
    "Digits",
    "Downloaded",
    "Drawn",
    "Emoji",
    "Faces",
    "FashionMNIST",
    "Heartbeat",
    "Identities",
    "IdentityFolder",
    "ImageFolder",
    "ImageSet",
    "ImageText",
    "Images",
    "KeyPoints",
    "LowPass",
    "Memory",
    "Outline",
    "Silhouette",
    "SwissRoll",
    "Tree",
    "Upsampling",
    "Versions",
]
