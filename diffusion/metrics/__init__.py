"""Measures of generated images: quality, labels obeyed, and copies of the training data."""

from diffusion.metrics.adherence import Adherence as Adherence
from diffusion.metrics.base import (
    Figure as Figure,
    MadeBy as MadeBy,
    Measure as Measure,
    SampleBatch as SampleBatch,
)
from diffusion.metrics.captions.asked_class import AskedClass as AskedClass
from diffusion.metrics.captions.asked_colours import AskedColours as AskedColours
from diffusion.metrics.captions.circle_place import CirclePlace as CirclePlace
from diffusion.metrics.captions.text_score import TextMeasure as TextMeasure
from diffusion.metrics.distance import (
    FrechetDistance as FrechetDistance,
    KernelDistance as KernelDistance,
    frechet as frechet,
    kernel as kernel,
)
from diffusion.metrics.features.base import Extractor as Extractor
from diffusion.metrics.features.efficientnet import EfficientNet as EfficientNet
from diffusion.metrics.features.lenet import LeNet as LeNet
from diffusion.metrics.features.torch_fidelity import VGG16 as VGG16, Inception as Inception
from diffusion.metrics.fidelity import Fidelity as Fidelity
from diffusion.metrics.identity_score import IdentityScore as IdentityScore
from diffusion.metrics.inception_score import InceptionScore as InceptionScore
from diffusion.metrics.judge import (
    Judge as Judge,
    JudgeAccuracy as JudgeAccuracy,
    LabelAccuracy as LabelAccuracy,
)
from diffusion.metrics.neighbours import NearCopies as NearCopies
from diffusion.metrics.report.card import Card as Card
