"""Whether images show the labels asked for, by the extractor and in a second opinion."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.common.pixels import scaled
from diffusion.common.validate import check_counts
from diffusion.metrics.base import FeatureMeasure, Figure, Measure, SampleBatch
from diffusion.metrics.features.base import Record
from diffusion.metrics.real_images import Data, collect, random_rows
from diffusion.metrics.reliability import tested


class Judge:
    """sign Σ_i α_i y_i exp(−γ‖x − x_i‖²) + b, one against one: a support vector machine on pixels.

    scikit-learn's SVC with γ = 1/(D·Var(x)) and C = 10. It shares nothing with a network that may
    have guided the sampler, so a model cannot please it by fooling that network.

    Args:
        limit: Most training images; the choice is random.
        seed: Seed of the choice.

    Attributes:
        test_accuracy: Its accuracy on the real test split, or `limit` of it by chance, 0 … 1.
        tested: How many images of each class that was.
        about: What a record says of it.
    """

    def __init__(self, limit: int = 10_000, seed: int = 0) -> None:
        from sklearn.svm import SVC

        check_counts("Judge", least=2, limit=limit)
        self.limit, self.seed = limit, seed
        self.test_accuracy: float | None = None
        self.tested: list[int] = []
        self.about: Record = {"test_accuracy": None}
        self._svc = SVC(kernel="rbf", gamma="scale", C=10)

    def fit(self, data: Data) -> None:
        """Learns the training split, and measures itself on the test split.

        Raises:
            ValueError: If the data has no labels.
        """
        images, labels = collect(data, "train")
        test, test_labels = collect(data, "test")
        if labels is None or test_labels is None or data.num_classes is None:
            raise ValueError("Judge: data has no labels; expected labelled images")
        images, labels, test, test_labels = (
            random_rows(x, self.limit, self.seed) for x in (images, labels, test, test_labels)
        )
        self._svc.fit(_pixels(images), labels.numpy())
        self.tested = test_labels.bincount().tolist()
        self.test_accuracy = self.accuracy(test, test_labels)
        self.about = {
            "test_accuracy": self.test_accuracy,
            **tested("the judge", self.test_accuracy, self.tested),
        }

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Returns the share of uint8 images (N, C, H, W) that have the asked labels (N,)."""
        found = torch.from_numpy(self._svc.predict(_pixels(images)))
        return (found == labels.cpu()).double().mean().item()


def _pixels(images: Tensor) -> np.ndarray:
    return scaled(images.cpu()).flatten(1).numpy()


class JudgeAccuracy(Measure):
    """The share of samples that have the label asked for in the opinion of a `Judge`.

    Every process teaches a judge of its own, all the same; it learns when the first label comes.
    """

    higher_is_better = True
    hits: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.judge = Judge()
        self.add_state("hits", torch.zeros((), dtype=torch.float64), "sum")

    def update(self, samples: SampleBatch) -> None:
        """Counts hits; samples without labels are left out."""
        if samples.labels is None:
            return
        self.count(samples)
        if self.judge.test_accuracy is None:
            self.judge.fit(self.data)
        share = self.judge.accuracy(samples.images, samples.labels)
        self.hits = self.hits + round(share * len(samples.images))

    def evaluate(self) -> dict[str, Figure]:
        """Returns the accuracy at n, nothing without labels."""
        self.entries = {"judge": self.judge.about}
        if not (n := int(self.seen)):
            return {}
        self.warn(self.judge.about.get("warning"))
        figure = Figure(
            self.hits.item() / n, n, "Judge's accuracy",
            "Share that a support vector machine on pixels gives the label asked for.",
            "high", True, ("judge", "data", "labels"), self.judge.test_accuracy,
        )  # fmt: skip
        return {f"judge_accuracy@{n}": figure}


class LabelAccuracy(FeatureMeasure):
    """The share of samples whose likeliest label, in the extractor's logits, is the one asked for.

    The record has the same of each label too, None where it was not asked for.
    """

    higher_is_better = True
    hits: Tensor
    asked: Tensor

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Takes note of the classes."""
        super().prepare(data, cache, progress)
        for name in ("hits", "asked"):
            zeros = torch.zeros(data.num_classes or 0, dtype=torch.float64, device=self.device)
            self.add_state(name, zeros, "sum")

    def update(self, samples: SampleBatch) -> None:
        """Counts hits; samples without labels, or an extractor of other classes, are left out."""
        logits = samples.features(self.extractor)[1]
        if samples.labels is None or logits.shape[1] != len(self.hits):
            return
        self.count(samples)
        labels = samples.labels.to(self.device)
        hits = logits.argmax(1).to(self.device) == labels
        self.hits = self.hits.index_add(0, labels, hits.to(self.hits))
        self.asked = self.asked.index_add(0, labels, torch.ones_like(labels).to(self.asked))

    def evaluate(self) -> dict[str, Figure]:
        """Returns the accuracy at n, nothing without labels."""
        n, each = int(self.seen), zip(self.hits.tolist(), self.asked.tolist())
        by_label = [hits / asked if asked else None for hits, asked in each]
        self.entries["accuracy_by_label"] = by_label if n else []
        if not n:
            return {}
        figure = Figure(
            self.hits.sum().item() / n, n, "Label accuracy",
            "Share whose likeliest label is the one asked for.", "high", True,
            ("extractor", "reference", "labels"), self.extractor.accuracy, leading=True,
        )  # fmt: skip
        return {f"label_accuracy@{n}": figure}
