"""What the name of a figure says, and what the figure means in a phrase."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CONVENTIONS = {
    "adm": "Sets as in ADM's evaluator: 10,000 reference images, or all, against all samples.",
    "k19": "Sets as in Kynkäänniemi et al. 2019: as many reference images as samples.",
}
WORDS = {"adm": "as ADM", "k19": "as Kynkäänniemi et al.", "lenet": "LeNet", "vgg16": "VGG16"}
HELD_OUT = "held-out real images in place of samples"


@dataclass(frozen=True)
class Meaning:
    """A kind of figure.

    Attributes:
        title: Its name for people.
        phrase: What it says.
        better: Which direction is better, if one is.
        share: Whether it is a share, 0 … 1.
        depends: The entries of a record that must be equal where two are compared.
        floor: What "_floor" is the same figure of.
        ceiling: What "_ceiling" is the same figure of.
    """

    title: str
    phrase: str
    better: Literal["low", "high"] | None
    share: bool = False
    depends: tuple[str, ...] = ("extractor", "reference", "labels")
    floor: str = HELD_OUT
    ceiling: str = HELD_OUT


FEATURES = ("extractors", "reference", "labels")
CAPTIONED = "real images that have the captions"
KINDS = {
    "fid": Meaning("FID", "Fréchet distance to the reference in Inception's features.", "low"),
    "fd": Meaning("Fréchet distance", "Distance of mean and covariance to the reference.", "low"),
    "kid": Meaning("Kernel distance", "Squared MMD to the reference; unbiased in n.", "low"),
    "is": Meaning("Inception score", "Sure labels, and many of them.", "high"),
    "precision": Meaning(
        "Precision", "Share of samples that lie among real images.", "high", True, FEATURES
    ),
    "recall": Meaning(
        "Recall", "Share of real images that lie among samples.", "high", True, FEATURES
    ),
    "f1": Meaning("F1", "Harmonic mean of precision and recall.", "high", True, FEATURES),
    "density": Meaning(
        "Density", "Real neighbourhoods of a sample; 1 if it were real.", "high", False, FEATURES
    ),
    "coverage": Meaning(
        "Coverage", "Share of real images with a sample nearby.", "high", True, FEATURES
    ),
    "label_accuracy": Meaning(
        "Label accuracy", "Share whose likeliest label is the one asked for.", "high", True
    ),
    "judge_accuracy": Meaning(
        "Judge's accuracy", "The same, by a support vector machine on pixels.", "high", True,
        ("judge", "data", "labels"),
    ),
    "near_copies": Meaning(
        "Near copies", "Share that are copies of a training image, or nearer to one than 95 % of "
        "new real images; more than held-out images have is copied.", None, True,
        ("data", "labels"),
    ),
    "clip_score": Meaning(
        "CLIP score", "Mean cosine of sample and caption, by the scorer.", "high", False, ("text",),
        "samples with the captions exchanged", CAPTIONED,
    ),
    "clip_r1": Meaning(
        "Caption found at once", "Share whose own caption is the nearest of all distinct ones.",
        "high", True, ("text",), ceiling=CAPTIONED,
    ),
    "clip_r5": Meaning(
        "Caption among five", "Share whose own caption is among the five nearest.", "high", True,
        ("text",), ceiling=CAPTIONED,
    ),
    "nfe": Meaning("NFE", "Network evaluations an image, counted.", "low", False, ()),
    "classifier_nfe": Meaning(
        "Classifier's NFE", "Evaluations an image of the guiding classifier.", "low", False, ()
    ),
    "seconds_per_image": Meaning(
        "Seconds an image", "Wall time of one process.", "low", False, ("hardware", "batch_size")
    ),
}  # fmt: skip
UNKNOWN = Meaning("", "", None)


@dataclass(frozen=True)
class Name:
    """The parts of a figure's name, such as precision_adm_lenet_ceiling@500.

    Attributes:
        text: All of it.
        base: What is before the baseline and n: precision_adm_lenet.
        baseline: "floor" or "ceiling" for held-out real images, "" for generated ones.
        n: The number of images, or None.
    """

    text: str
    base: str
    baseline: str
    n: int | None

    @property
    def kind(self) -> str:
        """The key of KINDS, or "" if it is none of them."""
        fits = [k for k in KINDS if self.base == k or self.base.startswith(f"{k}_")]
        return max(fits, key=len, default="")

    @property
    def meaning(self) -> Meaning:
        """What it says."""
        return KINDS.get(self.kind, UNKNOWN)

    @property
    def convention(self) -> str:
        """The convention of precision and recall: "adm", "k19" or ""."""
        return next((c for c in CONVENTIONS if c in self.base.split("_")), "")

    @property
    def title(self) -> str:
        """Its name for people."""
        rest = [WORDS.get(p, p) for p in self.base[len(self.kind) :].split("_") if p]
        title = self.meaning.title or self.base
        return f"{title} ({', '.join(rest)})" if rest and self.meaning.title else title

    @property
    def phrase(self) -> str:
        """What it means, with the convention."""
        if self.baseline:
            return f"The same, of {getattr(self.meaning, self.baseline)}."
        return f"{self.meaning.phrase} {CONVENTIONS.get(self.convention, '')}".strip()


def parse(text: str) -> Name:
    """Returns the parts of a figure's name."""
    found = re.fullmatch(r"(.+?)(?:_(floor|ceiling))?(?:@(\d+))?", text)
    base, baseline, n = found.groups() if found else (text, None, None)
    return Name(text, base, baseline or "", int(n) if n else None)


def held_out(name: Name, record: Mapping[str, Any]) -> float | None:
    """Returns what held-out real images get in place of the samples, if it is known.

    Args:
        name: A figure of generated images.
        record: What metrics.json holds.
    """
    copied = (v for k, v in record["figures"].items() if k.startswith("near_copies_floor@"))
    known = {
        "label_accuracy": (record.get("extractor") or {}).get("accuracy"),
        "judge_accuracy": (record.get("judge") or {}).get("test_accuracy"),
        "near_copies": next(copied, None),  # a share, which has no bias by n
    }
    real = ("floor", "ceiling") if name.meaning.floor == HELD_OUT else ("ceiling",)
    ends = (f"{name.base}_{end}@{name.n}" for end in real)
    measured = next((record["figures"][key] for key in ends if key in record["figures"]), None)
    return known.get(name.kind, measured)
