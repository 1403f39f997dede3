"""The class of a picture."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffusion.networks.conditioning.base import Conditioner


class Label(Conditioner):
    """A row of a trained table for each class, and one for ∅.

    Args:
        num_classes: K; labels are 0 … K − 1.
        width: Size E of a row.
        null_class: Whether ∅ has a row, the last, which is trained like the others.

    Raises:
        ValueError: If `num_classes` is below 1.
    """

    keys = ("label",)

    def __init__(self, num_classes: int, width: int, null_class: bool = True) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"network.num_classes: {num_classes}; expected at least 1, or null")
        self.num_classes, self.null_class = num_classes, null_class
        self.weight = nn.Parameter(torch.empty(num_classes + null_class, width))
        nn.init.normal_(self.weight)

    @property
    def null(self) -> Mapping[str, float | Tensor]:
        """See `Conditioner`."""
        return {"label": self.num_classes} if self.null_class else {}

    def forward(self, label: Tensor | None) -> Tensor:
        """Returns the rows (B, E) of labels (B,) in 0 … K, or the row (E,) of ∅ for None.

        Raises:
            ValueError: If ∅ is asked for that has no row.
        """
        if label is not None:
            return nn.functional.embedding(label, self.weight)
        if not self.null_class:
            raise ValueError("label: missing; expected classes, as the network has no null_class")
        return self.weight[-1]
