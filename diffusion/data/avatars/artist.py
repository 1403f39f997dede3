"""Drawing avatars: a person with a look, and where the eyes, nose and mouth are then.

Pictures are drawn once and kept in one file, whose name has a hash of the archive and of `RECIPE`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.common.files import check_writable, written_aside
from diffusion.common.hashing import digest
from diffusion.common.packages import obtain
from diffusion.common.progress import bar
from diffusion.data.avatars.dicebear import STYLES, PartsStyle
from diffusion.data.avatars.kind import KINDS, Kind
from diffusion.data.avatars.people import Look, Person, looks, people
from diffusion.data.reading.svg import drawn, on_white

# To be raised when persons, looks or pictures come out otherwise than before.
RECIPE = 1


@dataclass
class Artist:
    """Draws one style.

    Args:
        kind: The style, understood.
        style: Its parts.
    """

    kind: Kind
    style: PartsStyle

    def picture(self, person: Person, look: Look, size: int) -> np.ndarray:
        """Returns a person with a look, uint8 (3, size, size)."""
        tilted, placed = self._tilted(look), self._placed(look)
        moved = {
            part: placed if part in self.kind.still else placed @ _square(tilted)
            for part in self.style.content["components"]
        }
        parts, colours = {**person.parts, **look.parts}, {**person.colours, **look.colours}
        return on_white(drawn(self.style.svg(parts, colours, moved, look.ground)), size)

    def landmarks(self, person: Person, look: Look) -> np.ndarray:
        """Returns both eyes, the nose and both corners of the mouth, float64 (5, 2).

        They are x and y as shares of the picture, from its upper left corner; what is on the left
        in the picture comes first. Both eyes are the means of their ink, the tip of the nose and
        the corners of the mouth the outermost ink: exact to a `SIDE`-th of the picture.
        """
        kind, parts = self.kind, {**person.parts, **look.parts}
        points = np.concatenate(
            [self.points[x, parts[x]] for x in (kind.eyes, kind.nose, kind.mouth)]
        )
        matrix = self._placed(look) @ _square(self._tilted(look))
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        return moved[[1, 0, 2, 4, 3] if look.mirrored else slice(None)] / self.style.side

    @cached_property
    def points(self) -> dict[tuple[str, str], np.ndarray]:
        """The points on each variant of eyes, nose and mouth, before anything is moved."""
        kind, colours, found = self.kind, self.kind.colour_names, {}
        for part, variants in {**kind.lasting, **kind.passing}.items():
            for variant in variants if part in (kind.eyes, kind.nose, kind.mouth) else ():
                ink = self.style.ink(part, variant, colours)
                found[part, variant] = self._of(part, ink)
        return found

    def _of(self, part: str, ink: np.ndarray) -> np.ndarray:
        x = ink[:, 0]
        if part == self.kind.eyes:
            left = x < (x.min() + x.max()) / 2
            return np.stack([ink[left].mean(0), ink[~left].mean(0)])
        ends = [ink[x == end].mean(0) for end in (x.min(), x.max())]
        return np.stack(ends if part == self.kind.mouth else ends[1:])

    def _tilted(self, look: Look) -> np.ndarray:
        """Returns the rotation about the neck, (2, 3)."""
        angle, neck = np.deg2rad(look.tilt), np.array(self.kind.neck)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.column_stack([turn, neck - turn @ neck])

    def _placed(self, look: Look) -> np.ndarray:
        """Returns mirroring, scale and move, (2, 3)."""
        side, sign = self.style.side, -1 if look.mirrored else 1
        foot, turn = np.array([side / 2, side]), look.scale * np.diag([sign, 1.0])
        return np.column_stack([turn, foot - turn @ foot + side * np.array(look.move)])


@dataclass(frozen=True)
class Avatar:
    """What a picture shows: person number `person`, with a look."""

    person: int
    look: Look


@dataclass(frozen=True)
class Cast:
    """All persons and pictures of a data set, known before anything is drawn.

    Args:
        style: A style's name.
        persons: How many.
        pictures: Of each person.
    """

    style: str
    persons: int
    pictures: int

    @property
    def kind(self) -> Kind:
        """The style, understood."""
        return KINDS[self.style]()

    @cached_property
    def people(self) -> list[Person]:
        """The persons."""
        return people(self.kind, self.persons)

    @cached_property
    def avatars(self) -> list[Avatar]:
        """The pictures, those of a person in a row."""
        return [
            Avatar(i, look)
            for i in range(self.persons)
            for look in looks(self.kind, i, self.pictures)
        ]

    def file(self, root: Path, size: int) -> Path:
        """Returns where the pictures are."""
        made_from = digest([RECIPE, STYLES.sha256, self.style, self.persons, self.pictures, size])
        return root / "avatars" / f"{self.style}-{size}-{made_from[:12]}.safetensors"

    def artist(self, root: Path) -> Artist:
        """Returns who draws them, from the package, which is fetched if it is not there.

        Raises:
            FileNotFoundError: If it could not be fetched.
        """
        return Artist(self.kind, PartsStyle.read(obtain(STYLES, root / "packages"), self.style))

    def draw(self, root: Path, size: int) -> None:
        """Draws all pictures and writes the file, if it is not there.

        Raises:
            FileNotFoundError: If the package could not be fetched.
        """
        from safetensors.torch import save_file

        if (path := self.file(root, size)).is_file():
            return
        artist, shown = self.artist(root), [(self.people[x.person], x.look) for x in self.avatars]
        check_writable(path.parent, "data.root")
        with bar("avatars") as progress:
            pictures = [
                artist.picture(*one, size) for one in progress.track(shown, description="avatars")
            ]
        points = np.stack([artist.landmarks(*one) for one in shown]) * size
        tensors = {"images": torch.from_numpy(np.stack(pictures)), "landmarks": _float(points)}
        with written_aside(path) as aside:
            save_file(tensors, aside)

    def read(self, root: Path, size: int) -> tuple[Tensor, Tensor]:
        """Returns the pictures, uint8 (N, 3, size, size), and the landmarks in pixels, (N, 5, 2).

        Raises:
            FileNotFoundError: If they have not been drawn.
        """
        from safetensors.torch import load_file

        if not (path := self.file(root, size)).is_file():
            raise FileNotFoundError(
                f"data.root: {root}; expected {path.name} of Avatars there: get it with "
                "`download: true` where there is a network, or copy the folder avatars"
            )
        found = load_file(path)
        return found["images"], found["landmarks"]

    def swapped(
        self, artist: Artist, size: int, sources: Sequence[int], targets: Sequence[int]
    ) -> Tensor:
        """Returns the exact truth of swaps: the persons of some pictures, the looks of others.

        Args:
            artist: Who draws.
            size: Height and width.
            sources: Numbers of B pictures in the order of `avatars`: whose person it is.
            targets: And whose look.

        Returns:
            uint8 (B, 3, size, size).
        """
        shown = [
            artist.picture(self.people[self.avatars[i].person], self.avatars[j].look, size)
            for i, j in zip(sources, targets)
        ]
        return torch.from_numpy(np.stack(shown))


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()
