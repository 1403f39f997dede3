"""What systems that write texts have in common: tokens that are counted, and what is true."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.data import Images
from diffusion.data.captioned_images import Factual
from diffusion.systems.base import Scoring
from diffusion.systems.captioning import hallucination
from diffusion.systems.trainer import data_of


class Writing(Scoring):
    """A system whose test writes texts, and logs how much of what they say is true.

    A test leaves `NAME.json`, with the figures and all texts of this process, and `NAME.png`.

    Attributes:
        name: NAME.
        entry: What the file calls the texts.
        written: The texts of a test, beside what they were made of.
    """

    name: ClassVar[str]
    entry: ClassVar[str]

    @property
    def reads_labels(self) -> bool:
        """Never."""
        return False

    @property
    def reads_texts(self) -> bool:
        """Always."""
        return True

    @abstractmethod
    def counts(self) -> dict[str, float]:
        """Returns what was counted, over all processes."""

    def training_texts(self) -> tuple[Images, Mapping[str, Any]]:
        """Returns the data, and what is known of its training pictures without reading them."""
        data = data_of(self.trainer)
        assert isinstance(data, Images)
        pictures = data.split("train").each()
        return data, pictures.conditions(range(len(pictures)))

    def on_validation_epoch_end(self) -> None:
        """Logs what was counted."""
        figures = {f"val/{name}": value for name, value in self.counts().items()}
        self.log_figures(figures, "val/perplexity", "val/token_accuracy")

    def on_test_epoch_start(self) -> None:
        """Begins to count, also what is true."""
        self.on_validation_epoch_start()
        self.written = list[dict[str, str]]()
        data = data_of(self.trainer)
        known = isinstance(data, Factual) and data.truth
        self.tally = hallucination.Tally(data, self.device) if known else None

    def on_test_epoch_end(self) -> None:
        """Logs all figures, and writes them with this process's texts."""
        figures = self.counts()
        if self.tally is not None:
            figures |= self.tally.figures(self.trainer.strategy)
        record = {"figures": figures, self.entry: self.written}
        self.report(record, f"{self.name}.json", f"{self.name}.png", hallucination.plot)


def nll(logits: Tensor, tokens: Tensor) -> Tensor:
    """Returns −log p of each token, (B, N), 0 behind the end.

    Args:
        logits: (B, N, K) in float32.
        tokens: (B, N), −1 behind the end.
    """
    return F.cross_entropy(logits.transpose(1, 2), tokens, ignore_index=-1, reduction="none")


def counted(logits: Tensor, tokens: Tensor) -> Tensor:
    """Returns the sum of `nll`, how many tokens are the likeliest, and how many there are, (3,)."""
    there = tokens >= 0
    hits = (logits.argmax(2) == tokens) & there
    return torch.stack([nll(logits, tokens).sum(), hits.sum(), there.sum()])
