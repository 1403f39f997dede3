"""Measures of generated images: quality, labels obeyed, and copies of the training data."""

from diffusion.metrics.adherence import Adherence
from diffusion.metrics.base import Figure, Measure, SampleBatch
from diffusion.metrics.captions.asked_class import AskedClass
from diffusion.metrics.captions.asked_colours import AskedColours
from diffusion.metrics.captions.circle_place import CirclePlace
from diffusion.metrics.captions.text_score import TextMeasure
from diffusion.metrics.distance import FrechetDistance, KernelDistance, frechet, kernel
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.efficientnet import EfficientNet
from diffusion.metrics.features.lenet import LeNet
from diffusion.metrics.features.torch_fidelity import VGG16, Inception
from diffusion.metrics.fidelity import Fidelity
from diffusion.metrics.identity_score import IdentityScore
from diffusion.metrics.inception_score import InceptionScore
from diffusion.metrics.judge import Judge, JudgeAccuracy, LabelAccuracy
from diffusion.metrics.neighbours import NearCopies
from diffusion.metrics.report.card import Card

__all__ = [
    "VGG16",
    "Adherence",
    "AskedClass",
    "AskedColours",
    "Card",
    "CirclePlace",
    "EfficientNet",
    "Extractor",
    "Fidelity",
    "Figure",
    "FrechetDistance",
    "IdentityScore",
    "Inception",
    "InceptionScore",
    "Judge",
    "JudgeAccuracy",
    "KernelDistance",
    "LabelAccuracy",
    "LeNet",
    "Measure",
    "NearCopies",
    "SampleBatch",
    "TextMeasure",
    "frechet",
    "kernel",
]
