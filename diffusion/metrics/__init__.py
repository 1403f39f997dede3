"""Measures of generated images: quality, labels obeyed, and copies of the training data."""

from diffusion.common.pixels import quantize
from diffusion.metrics.card import Card
from diffusion.metrics.distance import frechet, inception_score, kernel
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.efficientnet import EfficientNet
from diffusion.metrics.features.lenet import LeNet
from diffusion.metrics.features.torch_fidelity import VGG16, Inception
from diffusion.metrics.judge import Judge
from diffusion.metrics.manifold import density_coverage, f1, precision_recall
from diffusion.metrics.neighbours import near_copies, nearest
from diffusion.metrics.text_score import TextMeasure

__all__ = [
    "VGG16",
    "Card",
    "EfficientNet",
    "Extractor",
    "Inception",
    "Judge",
    "LeNet",
    "TextMeasure",
    "density_coverage",
    "f1",
    "frechet",
    "inception_score",
    "kernel",
    "near_copies",
    "nearest",
    "precision_recall",
    "quantize",
]
