"""The Inception score, from sums."""

import numpy as np
import torch
from torch import Tensor

from diffusion.metrics.base import FeatureMeasure, Figure, SampleBatch
from diffusion.metrics.distance import DEPENDS
from diffusion.metrics.features.base import Extractor


class InceptionScore(FeatureMeasure):
    """The mean over parts of the samples of exp E_x KL(p(y|x) ‖ p(y)), from sums of each part.

    Salimans et al. 2016, arXiv:1606.03498.

    Args:
        extractor: Whose logits make p(y|x).
        n: The number of samples there will be; it says which sample is in which part.
        splits: The number of parts, at most n.
        seed: Seed of the deal.
    """

    higher_is_better = True
    counts: Tensor
    entropies: Tensor
    sums: Tensor

    def __init__(self, extractor: Extractor, n: int, splits: int = 10, seed: int = 0) -> None:
        super().__init__(extractor)
        if not 1 <= splits <= n:
            raise ValueError(f"InceptionScore.splits: {splits}; expected 1 … {n}")
        order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
        self.part = torch.empty_like(order)
        self.part[order] = torch.arange(1, n + 1).mul(splits).sub(1) // n
        for name, *size in (("counts", splits), ("entropies", splits), ("sums", splits, 1)):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), "sum")

    def update(self, samples: SampleBatch) -> None:
        """Adds p(y|x) and its entropy."""
        part = self.part.to(self.device)[self.count(samples) % len(self.part)]
        log = samples.features(self.extractor)[1].to(self.sums).log_softmax(1)
        of = torch.nn.functional.one_hot(part, len(self.counts)).T.to(self.sums)
        self.counts = self.counts + of.sum(1)
        self.entropies = self.entropies + of @ (log.exp() * log).sum(1)
        self.sums = self.sums + of @ log.exp()

    def evaluate(self) -> dict[str, Figure]:
        """Returns the score at n."""
        p = self.sums / self.counts[:, None]
        scores = (self.entropies / self.counts - torch.special.xlogy(p, p).sum(1)).exp()
        n, value = int(self.seen), scores.mean().item()
        phrase = "Sure labels, and many of them."
        figure = Figure(value, n, "Inception score", phrase, "high", depends=DEPENDS)
        return {f"{self.extractor.score}@{n}": figure}
