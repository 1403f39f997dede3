"""Sets in which one thing has several pictures, shown in turn."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from diffusion.data.sets import ImageSet


class Versions(ImageSet):
    """Groups of the pictures of a set, each as one picture that has versions.

    At its visit v, group k of n_k pictures shows number (k + v) mod n_k of them. So all groups
    weigh the same, however many pictures they have, and in n_k epochs each is shown once. The
    number of full turns, v // n_k, is the picture's own visit.

    Args:
        pictures: The set.
        groups: For each group, the numbers of its pictures.
    """

    def __init__(self, pictures: ImageSet, groups: Sequence[Sequence[int]]) -> None:
        self.pictures = pictures
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self.visit(indices, [0] * len(indices))

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> dict[str, Any]:
        """Read the versions whose turn it is."""
        return self.pictures.visit(*self._turn(indices, visits))

    def conditions(self, indices: Sequence[int]) -> dict[str, Any]:
        """What is known of the versions that the first visit shows."""
        return self.pictures.conditions(self._turn(indices, [0] * len(indices))[0])

    def each(self) -> "Versions":
        """All versions of all groups, each a group of its own."""
        return Versions(self.pictures, [[i] for group in self.groups for i in group])

    def digest(self) -> bytes:
        """Hash of the pictures' digest and of the groups."""
        groups = json.dumps([list(group) for group in self.groups])
        return hashlib.sha256(self.pictures.digest() + groups.encode()).digest()

    def _turn(self, indices: Sequence[int], visits: Sequence[int]) -> tuple[list[int], list[int]]:
        shown, own = [], []
        for k, v in zip(indices, visits):
            group = self.groups[k]
            shown.append(group[(k + v) % len(group)])
            own.append(v // len(group))
        return shown, own
