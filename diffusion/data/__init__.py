"""Data modules: pictures and points to learn, in batches that any number of processes agree on."""

from diffusion.data.base import Images
from diffusion.data.cifar10 import CIFAR10
from diffusion.data.digits import Digits
from diffusion.data.downloaded import Downloaded
from diffusion.data.emoji import Emoji
from diffusion.data.image_folder import ImageFolder
from diffusion.data.image_text import ImageText
from diffusion.data.memory import Memory
from diffusion.data.mnist import MNIST, FashionMNIST
from diffusion.data.sets import ImageSet
from diffusion.data.swiss_roll import SwissRoll
from diffusion.data.upsampling import Upsampling
from diffusion.data.versions import Versions

__all__ = [
    "CIFAR10",
    "MNIST",
    "Digits",
    "Downloaded",
    "Emoji",
    "FashionMNIST",
    "ImageFolder",
    "ImageSet",
    "ImageText",
    "Images",
    "Memory",
    "SwissRoll",
    "Upsampling",
    "Versions",
]
