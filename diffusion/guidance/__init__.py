# pyright: strict
"""Guidance: a function from a denoiser to a denoiser, so that a list of them composes."""

from diffusion.guidance.autoguidance import Autoguidance as Autoguidance
from diffusion.guidance.base import Guidance as Guidance
from diffusion.guidance.classifier import (
    Classifier as Classifier,
    ClassifierMean as ClassifierMean,
    NoiseAware as NoiseAware,
)
from diffusion.guidance.classifier_free import ClassifierFree as ClassifierFree
from diffusion.guidance.clip import Clip as Clip, TextScore as TextScore
from diffusion.guidance.control import (
    ControlStrength as ControlStrength,
    ImageStrength as ImageStrength,
)
from diffusion.guidance.gradient import Gradient as Gradient
from diffusion.guidance.inpaint import Inpaint as Inpaint
from diffusion.guidance.product import (
    BitProduct as BitProduct,
    Denoise as Denoise,
    Product as Product,
)
from diffusion.guidance.threshold import Dynamic as Dynamic, Static as Static
