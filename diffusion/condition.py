"""What a sample is conditioned on, and how to forget it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Named condition tensors, and the null value ∅ of those that can be forgotten.

    Training forgets each sample's condition with probability p_uncond; classifier-free guidance
    forgets it with probability 1. It is the same method.

    Attributes:
        values: Tensors of shape (B, ...), handed to the network by name.
        null: What stands for "no condition": a number or a tensor that broadcasts against one
            sample's value. It comes from the network that was trained with it.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    null: Mapping[str, float | Tensor] = field(default_factory=dict)

    def drop(self, p: float = 1.0, keys: Iterable[str] | None = None) -> "Condition":
        """Returns a copy in which each sample is ∅ with probability p, all its keys together.

        Args:
            p: The probability, 0 … 1, independent from sample to sample.
            keys: Which conditions to forget; by default all that have a null value. Those that
                this batch does not have are passed over.

        Raises:
            ValueError: If one of the keys has no null value.
        """
        values = dict(self.values)
        gone: Tensor | None = None
        for key in self.null if keys is None else keys:
            if key not in self.null:
                raise ValueError(f"drop: {key}; expected conditions with a ∅, {list(self.null)}")
            if key not in values:
                continue
            value = values[key]
            if gone is None:
                gone = self._forgotten(p, value)
            null = torch.as_tensor(self.null[key], dtype=value.dtype, device=value.device)
            values[key] = torch.where(gone.reshape(-1, *[1] * (value.ndim - 1)), null, value)
        return Condition(values, self.null)

    @staticmethod
    def _forgotten(p: float, value: Tensor) -> Tensor:
        """Which samples are forgotten, (B,) bool; certainty costs no random numbers."""
        if p == 1:
            return torch.ones(len(value), dtype=torch.bool, device=value.device)
        return torch.rand(len(value), device=value.device) < p

    def cat(self, other: "Condition") -> "Condition":
        """Returns both conditions as one batch, this one's samples first."""
        values = {k: torch.cat([v, other.values[k]]) for k, v in self.values.items()}
        return Condition(values, self.null)
