# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
"""What a metric is: a `torchmetrics.Metric` of samples, whose figures carry their meaning."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffusion.metrics.features.base import Extractor, Record
from diffusion.metrics.real_images import Data
from diffusion.metrics.reliability import tested

HELD_OUT = "held-out real images in place of samples"


@dataclass(frozen=True)
class Figure:
    """A number with its meaning; tables, cards and comparisons know nothing else of it.

    Attributes:
        value: The number.
        n: The number of images; None where it has no influence.
        title: Its name for people, with features and convention. Figures of one title are of one
            kind: the same at another n, or a floor or ceiling of it.
        phrase: What it says.
        better: Which direction is better, if one is.
        share: Whether it is a share, 0 … 1.
        depends: The entries of the record, see `Measure`, that are equal where two figures
            may be compared.
        baseline: What held-out real images get in place of the samples, if it is known.
        real: Whether it is itself such a figure of real images, a floor or a ceiling.
        leading: Whether it is one of the few that a card begins with.
        invalid: Why it says nothing, if so.
    """

    value: float
    n: int | None = None
    title: str = ""
    phrase: str = ""
    better: Literal["low", "high"] | None = None
    share: bool = False
    depends: tuple[str, ...] = ()
    baseline: float | None = None
    real: bool = False
    leading: bool = False
    invalid: str | None = None

    def floor(self, value: float, n: int | None = None, of: str = HELD_OUT) -> "Figure":
        """Returns the same figure of what it is to be compared with: a floor or a ceiling.

        Args:
            value: The number.
            n: The number of images; by default this figure's.
            of: What it is the figure of.
        """
        about = {"phrase": f"The same, of {of}.", "better": None, "baseline": None}
        about |= {"value": value, "n": n or self.n, "invalid": None}
        return replace(self, real=True, leading=False, **about)


def with_real(
    figures: Mapping[str, Figure], real: Mapping[str, Figure], end: str, of: str = HELD_OUT
) -> dict[str, Figure]:
    """Returns figures with what real images get, beside each and as a figure of its own.

    Args:
        figures: By name, such as "fd_lenet@500".
        real: Those of real images, by the same names; of some of them.
        end: "floor" or "ceiling", as in "fd_lenet_floor@500".
        of: Whose it is.
    """
    out: dict[str, Figure] = {}
    for name, figure in figures.items():
        out[name] = figure
        if name in real:
            value, (base, _, n) = real[name].value, name.partition("@")
            out[name] = replace(figure, baseline=value)
            out[f"{base}_{end}@{n}"] = figure.floor(value, of=of)
    return out


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """A batch of generated images, and what they were asked to be.

    Attributes:
        images: uint8 (B, C, H, W).
        index: Their numbers among all samples, (B,); None for consecutive ones, see `Measure.seen`.
        labels: The labels that were asked for, (B,), or None.
        texts: The captions that were asked for, or None.
        controls: What they were controlled by, (B, c, H, W) in [0, 1] by name, or None.
        identities: Pictures of whom they were asked to be, (B, C, H, W) in [−1, 1], or None.
        persons: Who that is, (B,), or None.
    """

    images: Tensor
    index: Tensor | None = None
    labels: Tensor | None = None
    texts: Sequence[str] | None = None
    controls: Mapping[str, Tensor] | None = None
    identities: Tensor | None = None
    persons: Tensor | None = None
    _found: dict[Extractor, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def features(self, extractor: Extractor) -> tuple[Tensor, Tensor]:
        """Returns the extractor's features (B, D) and logits (B, K), computed once."""
        if extractor not in self._found:
            self._found[extractor] = extractor(self.images)
        return self._found[extractor]


@dataclass(frozen=True)
class MadeBy:
    """What draws the samples that are to be judged, as fingerprints.

    Attributes:
        encoders: Of frozen networks in it, such as what conditions on pictures of persons.
        guides: Of the CLIPs that guide.
        parts: Of text encoders, towers and networks that a judge must not share, see
            `networks.towers.independent_parts`.
    """

    encoders: Collection[str] = ()
    guides: Collection[str] = ()
    parts: Collection[str] = ()


class Measure(Metric, ABC):
    """A metric of samples, in one process or several, in any LightningModule or none.

    `prepare` learns what is real, `update` takes batches into states that torchmetrics sums or
    gathers over the processes, and `evaluate` makes the figures of the states. Every process
    updates at least once.

    Attributes:
        seen: The number of samples.
        data: The data module; known after `prepare`.
        warnings: Why the figures are worth less than they seem; known after `evaluate`.
        entries: What the figures were measured with, as entries of the record, by key. An entry's
            "warning" says why figures that depend on it are not to be compared.
        beside: Whether samples without their controls are measured too, see `uncontrolled`.
    """

    full_state_update = True
    beside = False
    plot = Metric._plot  # of the numbers; torchmetrics wants it to be asked for
    seen: Tensor
    data: Data

    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", torch.zeros((), dtype=torch.int64), "sum")
        self.warnings: list[str] = []
        self.entries: Record = {}
        self._figures: dict[str, Figure] = {}

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Learns what is real, before any sample is drawn; by default only which data it is.

        Args:
            data: The data module.
            cache: Folder for files that are computed once.
            progress: Whether to draw a progress bar.
        """
        self.data = data

    def check(self, data: Data, by: MadeBy) -> str | None:
        """Refuses what cannot be measured, before anything is drawn; returns a warning, if any.

        Args:
            data: The data module.
            by: What draws.

        Raises:
            ValueError: If it cannot.
        """
        return None

    @abstractmethod
    def update(self, samples: SampleBatch) -> None:
        """Takes a batch into the states, of which `count` is the first."""

    @abstractmethod
    def evaluate(self) -> dict[str, Figure]:
        """Returns the figures of the states, which are those of all processes, by name.

        A name ends with "@n", the number of images, where the figure depends on it.
        """

    def uncontrolled(self) -> dict[str, Figure]:
        """Returns the figures of the states, whose samples were drawn without their controls.

        They are drawn once, as what a control is added to stays as it is, and only if `beside`.
        """
        return {}

    def compute(self) -> dict[str, Tensor]:
        """Returns the numbers by name, as `log_dict` takes them."""
        self._figures = self.evaluate()
        return {name: torch.tensor(figure.value) for name, figure in self._figures.items()}

    def figures(self) -> dict[str, Figure]:
        """Returns the figures of all processes' samples by name."""
        self.compute()
        return self._figures

    def warn(self, *texts: str | None) -> None:
        """Sets the warnings: those texts that there are."""
        self.warnings = [text for text in texts if text]

    def count(self, samples: SampleBatch) -> Tensor:
        """Counts the samples; returns their numbers, where they have none those of a fair deal."""
        first, size = self.seen, len(samples.images)
        self.seen = first + size
        if samples.index is not None:
            return samples.index.to(self.device)
        group = torch.distributed
        several = group.is_available() and group.is_initialized()
        rank, world = (group.get_rank(), group.get_world_size()) if several else (0, 1)
        return rank + world * (first + torch.arange(size, device=self.device))


class FeatureMeasure(Measure):
    """A measure of an extractor's features, or of its logits.

    Args:
        extractor: Prepared with the measure.

    Attributes:
        about: What a record says of the extractor; known after `prepare`.
    """

    about: Record

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Prepares the extractor too."""
        super().prepare(data, cache, progress)
        self.extractor.prepare(data, cache, progress)
        self.about = self.extractor.describe()
        accuracy = self.extractor.accuracy
        if accuracy is not None and (counts := data.class_counts("test")) is not None:
            self.about |= tested(f"the extractor {self.extractor.name}", accuracy, counts)
        self.warn(self.about.get("warning"))
        self.entries = {"extractor": self.about}


def in_sample_order(index: Tensor | list[Tensor], *rows: Tensor | list[Tensor]) -> list[Tensor]:
    """Returns gathered states in the order of the samples' numbers."""
    order = dim_zero_cat(index).argsort()
    return [dim_zero_cat(x)[order] for x in rows]
