"""Guidance: a function from a denoiser to a denoiser, so that a list of them composes."""

from diffusion.guidance.autoguidance import Autoguidance
from diffusion.guidance.base import Guidance
from diffusion.guidance.classifier import Classifier, ClassifierMean, NoiseAware
from diffusion.guidance.classifier_free import ClassifierFree
from diffusion.guidance.clip import Clip, TextScore
from diffusion.guidance.control import ControlStrength
from diffusion.guidance.gradient import Gradient
from diffusion.guidance.inpaint import Inpaint
from diffusion.guidance.product import BitProduct, Denoise, Product
from diffusion.guidance.threshold import Dynamic, Static

__all__ = [
    "Autoguidance",
    "BitProduct",
    "Classifier",
    "ClassifierFree",
    "ClassifierMean",
    "Clip",
    "ControlStrength",
    "Denoise",
    "Dynamic",
    "Gradient",
    "Guidance",
    "Inpaint",
    "NoiseAware",
    "Product",
    "Static",
    "TextScore",
]
