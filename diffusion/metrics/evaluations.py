"""How often a network was evaluated, counted and not computed from the sampler's settings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from diffusion.metrics.base import Figure


class Evaluations:
    """Counts the rows that a network's calls evaluate.

    So a batch of 2B for classifier-free guidance counts 2 an image, and a step of second order, or
    an interval in which guidance is off, counts what it does.

    Attributes:
        rows: The sum of the batch sizes of all calls.
    """

    def __init__(self) -> None:
        self.rows = 0

    @contextmanager
    def counting(self, network: nn.Module) -> Iterator[None]:
        """Counts the calls of a network while the block runs."""
        handle = network.register_forward_hook(self._add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _add(
        self, network: nn.Module, args: tuple, kwargs: dict[str, object], output: object
    ) -> None:
        first = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        self.rows += len(first)


def evaluation_figures(per_image: Mapping[str, float], seconds: float) -> dict[str, Figure]:
    """Returns the figures of what an image costs.

    Args:
        per_image: How often a network was evaluated for one image: "nfe" of those that denoise,
            "nfe_64x64" of those of one size, "classifier_nfe" of what guides.
        seconds: Wall time that one process needs for one image.
    """
    titles = {"nfe": "NFE", "classifier_nfe": "Classifier's NFE"}
    out = {
        name: Figure(
            value, None, titles.get(name, f"NFE ({name.removeprefix('nfe_')})"),
            "Network evaluations an image, counted.", "low", leading=name == "nfe",
        )
        for name, value in per_image.items()
    }  # fmt: skip
    return out | {
        "seconds_per_image": Figure(
            seconds, None, "Seconds an image", "Wall time of one process.", "low",
            depends=("hardware", "batch_size"), leading=True,
        )
    }  # fmt: skip
