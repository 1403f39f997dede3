"""Pictures of persons, each with another picture of the same person."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from diffusion.data.identities.key_points import key_points
from diffusion.data.sets import ImageSet
from diffusion.spec import Batch


@dataclass(eq=False)
class WithAnother(ImageSet):
    """Pictures of a set, with "person" and "identity", another picture of the same person.

    Of a person's n pictures, picture j has number (j + 1 + v mod (n − 1)) mod n beside it at its
    visit v: never itself, and all others in turn. So nothing learns to copy its condition.

    "person" is int64 (B,), and "identity" uint8 (B, C, H, W). Where landmarks are known, there is
    also "landmarks", x and y of five points in pixels, float32 (B, 5, 2).

    Args:
        pictures: All pictures.
        persons: Whose each is, int64 (N,).
        rows: Which pictures are in this set; the other pictures are of these too.
        landmarks: Of all pictures, float32 (N, 5, 2), or None.
        drawn: Names of controls that are the landmarks as `key_points` of so many pixels.

    Raises:
        ValueError: If a person has one picture only.
    """

    pictures: ImageSet
    persons: Tensor
    rows: Sequence[int]
    landmarks: Tensor | None = None
    drawn: Mapping[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        for number, group in self.groups.items():
            if len(group) < 2:
                raise ValueError(
                    f"data: person {number} has 1 picture; expected at least 2 of everyone"
                )

    @cached_property
    def groups(self) -> dict[int, list[int]]:
        """The places of each person's pictures in `rows`, by the person's number."""
        found: dict[int, list[int]] = {}
        for place, person in enumerate(self.persons[torch.as_tensor(self.rows)].tolist()):
            found.setdefault(person, []).append(place)
        return found

    @cached_property
    def _turns(self) -> list[tuple[list[int], int]]:
        """Of each picture, the places of the person's pictures, and its own among them."""
        found = {place: (g, j) for g in self.groups.values() for j, place in enumerate(g)}
        return [found[place] for place in range(len(self))]

    def others(self, indices: Sequence[int], visits: Sequence[int]) -> list[int]:
        """Returns the places of the pictures beside those at some places."""
        found = []
        for (group, j), v in zip((self._turns[i] for i in indices), visits):
            found.append(group[(j + 1 + v % (len(group) - 1)) % len(group)])
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.visit(indices, [0] * len(indices))

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> Batch:
        """Returns pictures, each with the one of the same person whose turn it is."""
        rows = [self.rows[i] for i in indices]
        others = [self.rows[i] for i in self.others(indices, visits)]
        known = self._known(rows)
        known["identity"] = self.pictures.__getitems__(others)["image"]
        if self.landmarks is not None:
            known |= {name: key_points(known["landmarks"], n) for name, n in self.drawn.items()}
        return {**self.pictures.visit(rows, visits), **known}

    def conditions(self, indices: Sequence[int]) -> Batch:
        """Returns what is known of the pictures without reading them."""
        rows = [self.rows[i] for i in indices]
        return {**self.pictures.conditions(rows), **self._known(rows)}

    def _known(self, rows: Sequence[int]) -> dict[str, Tensor]:
        at = torch.as_tensor(rows)
        known = {"person": self.persons[at]}
        if self.landmarks is not None:
            known["landmarks"] = self.landmarks[at]
        return known

    def digest(self) -> bytes:
        """Returns a hash of the pictures' digest, of whose they are and of the landmarks."""
        sha = hashlib.sha256(self.pictures.digest() + self.persons.numpy().tobytes())
        sha.update(torch.as_tensor(self.rows).numpy().tobytes())
        if self.landmarks is not None:
            sha.update(self.landmarks.numpy().tobytes())
        return sha.digest()
