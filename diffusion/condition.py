# pyright: strict
"""What a sample is conditioned on, and how to forget it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffusion.noise import SeededNoise


def named_after(name: str, keys: Iterable[str]) -> list[str]:
    """Returns the tensors of a condition: "text" stands for "text", "text_mask" and the like."""
    return [key for key in keys if key == name or key.startswith(f"{name}_")]


@dataclass(frozen=True)
class Forget:
    """How often training forgets some conditions of a sample, all of them together.

    Attributes:
        keys: The names of the conditions.
        p: The probability, 0 … 1.
        exclusive: Whether it never happens together with other exclusive rows.
    """

    keys: list[str]
    p: float
    exclusive: bool = False


@dataclass(frozen=True)
class Condition:
    """Named condition tensors, and the null value ∅ of those that can be forgotten.

    Training forgets each sample's condition with probability p_uncond; classifier-free guidance
    forgets it with probability 1. It is the same method.

    Attributes:
        values: Tensors of shape (B, ...), handed to the network by name.
        null: What stands for "no condition": a number or a tensor that broadcasts against one
            sample's value. It comes from the network that was trained with it.
        always: What is forgotten wherever conditions are, whichever were named.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    null: Mapping[str, float | Tensor] = field(default_factory=dict[str, float | Tensor])
    always: frozenset[str] = frozenset()

    def drop(
        self,
        p: float | Sequence[Forget] = 1.0,
        keys: Iterable[str] | None = None,
        noise: SeededNoise | None = None,
    ) -> "Condition":
        """Returns a copy in which some conditions of some samples are ∅.

        Args:
            p: The probability, 0 … 1, independent from sample to sample, that a sample forgets all
                keys together; or several rows, which are independent of each other unless they are
                exclusive.
            keys: Which conditions to forget, for a number; by default all that have a null value.
                Those that this batch does not have are passed over.
            noise: The samples', which decides; not needed where p is 0 or 1.

        Raises:
            ValueError: If one of the keys has no null value, or chance has no noise to decide by.
        """
        if isinstance(p, int | float):
            p = [Forget([*(self.null if keys is None else keys), *self.always], p)]
        values, spared, shared = dict(self.values), 0.0, None
        for row in p:
            every = dict.fromkeys(part for key in row.keys for part in self._parts(key))
            here = [key for key in every if key in values]
            first, spared = spared, spared + row.p * row.exclusive
            if not here or row.p == 0:
                continue
            like = values[here[0]]
            if row.p == 1 and not row.exclusive:  # certainty costs no random numbers
                gone = torch.ones(len(like), dtype=torch.bool, device=like.device)
            elif noise is None:
                raise ValueError(f"drop: p = {row.p}; expected noise that decides, or 0 or 1")
            elif row.exclusive:  # each has its own part of [0, 1)
                shared = noise.uniform() if shared is None else shared
                gone = (first <= shared) & (shared < spared)
            else:
                gone = noise.uniform() < row.p
            for key in here:
                value = values[key]
                null = self.null[key]
                null = null.to(value) if isinstance(null, Tensor) else value.new_full((), null)
                values[key] = torch.where(gone.reshape(-1, *[1] * (value.ndim - 1)), null, value)
        return replace(self, values=values)

    def _parts(self, key: str) -> list[str]:
        if parts := named_after(key, self.null):
            return parts
        raise ValueError(f"drop: {key}; expected conditions with a ∅, {list(self.null)}")

    def cat(self, other: "Condition") -> "Condition":
        """Returns both conditions as one batch, this one's samples first."""
        values = {k: torch.cat([v, other.values[k]]) for k, v in self.values.items()}
        return replace(self, values=values)
