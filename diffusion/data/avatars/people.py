"""Who is drawn and how: persons, who stay the same, and looks, which pass.

All is drawn by chance of a fixed seed, so it is the same everywhere; `RandomState`, because NumPy
promises that its stream never changes.
"""

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from diffusion.common.hashing import share_of
from diffusion.data.avatars.kind import Colours, Kind

HELD_OUT = 0.06
FREE = 14  # how far a value of red, green or blue lies from the colour that has its name
MOST = 4000  # persons that are told apart by what is seen
NUMBERS = 64  # enough for a person or a look


@dataclass(frozen=True)
class Person:
    """Who: what all pictures of one person have in common.

    Attributes:
        parts: The variants of the lasting parts.
        colours: As #rrggbb, by the style's names.
        named: What captions call the colours, by the same names.
        key: What tells the person from all others, in words.
        split: "train", "val" or "test".
    """

    parts: Mapping[str, str]
    colours: Mapping[str, str]
    named: Mapping[str, str]
    key: str
    split: str


@dataclass(frozen=True)
class Look:
    """How: pose, expression and clothes of one picture, for any person.

    Attributes:
        parts: The variants of the passing parts.
        colours: As #rrggbb, by the style's names.
        named: What captions call them.
        ground: The background's colour.
        tilt: Of the head, in degrees, clockwise.
        scale: Of everything, about the middle of the lower edge.
        move: x and y as shares of the canvas.
        mirrored: Whether left is right.
    """

    parts: Mapping[str, str]
    colours: Mapping[str, str]
    named: Mapping[str, str]
    ground: str
    tilt: float
    scale: float
    move: tuple[float, float]
    mirrored: bool


def people(kind: Kind, n: int) -> list[Person]:
    """Returns n persons, no two of whom are the same in all that is seen."""
    random, found = np.random.RandomState(0), dict[str, Person]()
    while len(found) < n:
        chance = _chance(random)
        parts = _chosen(kind.lasting, chance)
        colours, named = _coloured(kind.lasting_colours, chance)
        colours |= {other: colours[one] for other, one in kind.same_colour.items()}
        seen = {part: parts.get(part, "none") for part in kind.lasting if part not in kind.hidden}
        unseen = {name for name, of in kind.shown_by.items() if not of & parts.items()}
        shades = {name: named[name] for name in named if name not in unseen}
        key = ", ".join(f"{name} {value}" for name, value in {**seen, **shades}.items())
        new = (kind.unseen_parts & parts.items()) or (kind.unseen_colours & shades.items())
        share = share_of(key)
        split = "val" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"
        found.setdefault(key, Person(parts, colours, named, key, "test" if new else split))
    return list(found.values())


def looks(kind: Kind, person: int, n: int) -> list[Look]:
    """Returns the n looks that a person, by number, is drawn with."""
    random = np.random.RandomState([1, person])
    return [_look(kind, _chance(random)) for _ in range(n)]


def _chance(random: np.random.RandomState) -> Iterator[float]:
    """Returns numbers that are uniform in [0, 1)."""
    return iter(random.random_sample(NUMBERS).tolist())


def _look(kind: Kind, chance: Iterator[float]) -> Look:
    parts, (colours, named) = _chosen(kind.passing, chance), _coloured(kind.passing_colours, chance)
    ground = _hex([170 + 85 * next(chance) for _ in range(3)])
    tilt, scale = 28 * next(chance) - 14, 0.9 + 0.3 * next(chance)
    move = (0.18 * next(chance) - 0.09, 0.06 * next(chance))
    return Look(parts, colours, named, ground, tilt, scale, move, next(chance) < 0.5)


def _chosen(parts: Mapping[str, Mapping[str, float]], chance: Iterator[float]) -> dict[str, str]:
    """Returns a variant of each part, as often as they say; the variant "" is none."""
    found = {part: _pick(variants, chance) for part, variants in parts.items()}
    return {part: variant for part, variant in found.items() if variant}


def _pick(weights: Mapping[str, float], chance: Iterator[float]) -> str:
    """Returns one of the names, as often as they say."""
    ends = list(accumulate(weights.values()))
    return list(weights)[bisect(ends, next(chance) * ends[-1], hi=len(ends) - 1)]


def _coloured(
    palettes: Mapping[str, Colours], chance: Iterator[float]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns a colour near one of each palette, and that one's name."""
    colours, named = dict[str, str](), dict[str, str]()
    for name, palette in palettes.items():
        named[name] = _pick({shade: often for shade, (_, often) in palette.items()}, chance)
        rgb, _ = palette[named[name]]
        colours[name] = _hex([v + FREE * (2 * next(chance) - 1) for v in rgb])
    return colours, named


def _hex(rgb: Sequence[float]) -> str:
    return "#" + "".join(f"{min(max(round(v), 0), 255):02x}" for v in rgb)
