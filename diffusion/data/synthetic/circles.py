"""Circles of random place and colours, whose outline and caption say all there is to know."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch

from diffusion.common.hashing import share_of
from diffusion.common.palette import CSS
from diffusion.common.validate import check_counts
from diffusion.data.captioned_images import CaptionedImages
from diffusion.data.sets import Memory

HELD_OUT = 0.1
CELLS = 8  # in a row, by which places are held out
AT_ONCE = 1000


@dataclass(frozen=True)
class Circle:
    """What N pictures show.

    Attributes:
        centre: x and y in pixels from the upper left corner, whose own pixel's centre is at ½,
            float64 (N, 2).
        radius: In pixels, float64 (N,).
        colours: Numbers in `palette.CSS` of the circle's colour and of the background's,
            int64 (N, 2).
    """

    centre: np.ndarray
    radius: np.ndarray
    colours: np.ndarray

    def captions(self) -> list[str]:
        """Returns "a red circle on a navy background" and the like."""
        names = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in CSS]
        return [f"{names[i]} circle on {names[j]} background" for i, j in self.colours]

    def drawn(self, size: int) -> np.ndarray:
        """Returns the pictures, uint8 (N, 3, size, size); the circle's edge is one pixel wide.

        The circle's share of a pixel d from its centre is r − d + ½ where that is in 0 … 1.
        """
        y, x = np.indices((size, size)) + 0.5
        across, down = self.centre.T[:, :, None, None]
        far = np.hypot(x - across, y - down)
        share = np.clip(self.radius[:, None, None] - far + 0.5, 0, 1)[:, None]
        inside, outside = np.array(list(CSS.values()), float)[self.colours.T, :, None, None]
        return np.rint(share * inside + (1 - share) * outside).astype(np.uint8)


class Circles(CaptionedImages):
    """A circle of one colour on a background of another, in the manner of ControlNet's Fill50K.

    Its caption names both colours, of 24, and says nothing of the place, which is uniform, as is
    the radius, an eighth to a third of the size; the circle never touches the border. With
    `controls: {outline: Outline}`, its outline says place and radius and nothing of the colours.

    Validation and test set have pairs of colours that training has not, a tenth each of all, and
    places that it has not: centres in some cells of 8 × 8, a tenth or so each.

    Args:
        size: Height and width.
        pictures: How many there are to train on.
        held_out: How many for validation, and how many for testing.
        **kwargs: As for `CaptionedImages`.

    Attributes:
        truth: What the pictures of each split show, once the data is set up.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self, size: int = 32, pictures: int = 10_000, held_out: int = 500, **kwargs: Any
    ) -> None:
        self.shape = (3, size, size)
        super().__init__(**kwargs)
        check_counts("data", least=16, most=256, size=size)
        check_counts("data", pictures=pictures, held_out=held_out)
        self.pictures, self.held_out = pictures, held_out
        self.truth: dict[str, Circle] = {}

    def read_splits(self) -> Iterable[str]:
        """Draws the pictures, the same every time."""
        sets, texts = dict[str, Memory](), set[str]()
        for number, split in enumerate(("train", "val", "test")):
            n = self.held_out if number else self.pictures
            circles = drawn_by_chance(n, self.shape[-1], split, np.random.RandomState(number))
            self.truth[split], captions = circles, circles.captions()
            parts = (
                Circle(circles.centre[i:j], circles.radius[i:j], circles.colours[i:j])
                for i, j in ((i, i + AT_ONCE) for i in range(0, n, AT_ONCE))
            )
            images = torch.cat([torch.from_numpy(part.drawn(self.shape[-1])) for part in parts])
            sets[split] = Memory(images, None, [[caption] for caption in captions])
            texts |= {*captions}
        self.train_set, self.val_set, self.test_set = sets.values()
        return texts


def split_of(name: str) -> str:
    """Returns the split of a pair of colours, or of a cell, by its name."""
    share = share_of(name)
    return "val" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"


def drawn_by_chance(n: int, size: int, split: str, random: np.random.RandomState) -> Circle:
    """Returns what n pictures of a split show: its pairs of colours, its places."""
    pairs = [
        (i, j)
        for (i, inside), (j, outside) in permutations(enumerate(CSS), 2)
        if split_of(f"{inside} {outside}") == split
    ]
    cells = np.array([[split_of(f"{i} {j}") == split for i in range(CELLS)] for j in range(CELLS)])
    found: list[np.ndarray] = []
    while sum(map(len, found)) < n:
        radius = random.uniform(size / 8, size / 3, 8 * n)
        room = radius[:, None] + 1
        centre = room + random.uniform(size=(8 * n, 2)) * (size - 2 * room)
        column, row = (centre * CELLS / size).astype(int).T
        found.append(np.column_stack([centre, radius])[cells[row, column]])
    places = np.concatenate(found)[:n]
    return Circle(places[:, :2], places[:, 2], np.array(pairs)[random.randint(len(pairs), size=n)])
