"""A second opinion on labels, by a classifier that no model was guided or measured with."""

from typing import Any

import torch
from torch import Tensor

from diffusion.metrics.generated import some
from diffusion.metrics.real_images import Data, collect
from diffusion.metrics.worth import tested


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
    """

    def __init__(self, limit: int = 10_000, seed: int = 0) -> None:
        if limit < 2:
            raise ValueError(f"Judge.limit: {limit}, expected at least 2")
        self.limit, self.seed = limit, seed
        self.test_accuracy: float | None = None
        self.tested: list[int] = []
        self._svc: Any = None

    def fit(self, data: Data) -> None:
        """Learns the training split, and measures itself on the test split.

        Raises:
            ValueError: If the data has no labels.
        """
        from sklearn.svm import SVC

        images, labels = collect(data, "train")
        test, test_labels = collect(data, "test")
        if labels is None or test_labels is None or data.num_classes is None:
            raise ValueError("Judge: data has no labels, expected labelled images")
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(len(images), generator=generator)[: self.limit]
        self._svc = SVC(kernel="rbf", gamma="scale", C=10)
        self._svc.fit(_pixels(images[rows]).numpy(), labels[rows].numpy())
        test, test_labels = (some(x, self.limit, self.seed) for x in (test, test_labels))
        self.tested = test_labels.bincount().tolist()
        self.test_accuracy = self.accuracy(test, test_labels)

    def describe(self) -> dict[str, Any]:
        """Returns what a record says of it, once it has learned."""
        about: dict[str, Any] = {"test_accuracy": self.test_accuracy}
        if self.test_accuracy is None:
            return about
        return about | tested("the judge", self.test_accuracy, self.tested)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Returns the share of uint8 images (N, C, H, W) that have the asked labels (N,)."""
        found = torch.from_numpy(self._svc.predict(_pixels(images).numpy()))
        return (found == labels.cpu()).double().mean().item()


def _pixels(images: Tensor) -> Tensor:
    return images.cpu().flatten(1).float() / 127.5 - 1
