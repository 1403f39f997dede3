"""Data modules: pictures and points to learn, in batches that any number of processes agree on."""

from .cifar10 import CIFAR10
from .digits import Digits
from .downloaded import Downloaded
from .emoji import Emoji
from .image_folder import ImageFolder
from .image_set import ImageSet
from .image_text import ImageText
from .memory import Memory
from .mnist import MNIST, FashionMNIST
from .module import Images
from .swiss_roll import SwissRoll
from .upsampling import Upsampling
from .versions import Versions

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
