"""Measures of generated images: quality, labels obeyed, and copies of the training data."""

from diffusion.metrics.distance import frechet, inception_score, kernel
from diffusion.metrics.extractor import Extractor
from diffusion.metrics.inception import Inception
from diffusion.metrics.judge import Judge
from diffusion.metrics.lenet import LeNet
from diffusion.metrics.neighbours import near_copies, nearest
from diffusion.metrics.quantize import quantize

__all__ = [
    "Extractor",
    "Inception",
    "Judge",
    "LeNet",
    "frechet",
    "inception_score",
    "kernel",
    "near_copies",
    "nearest",
    "quantize",
]
