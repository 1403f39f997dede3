"""What a style's parts mean: which are a person's, which pass, and what captions call them."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

Rgb = tuple[int, int, int]
Colours = Mapping[str, tuple[Rgb, float]]  # by name, and how often
Weights = Mapping[str, Mapping[str, float]]  # of each part's variants, "" for none


@dataclass(frozen=True)
class Kind:
    """A style of DiceBear, understood.

    Attributes:
        name: Of the style.
        lasting: Parts that are a person's.
        passing: Parts that are a look's.
        lasting_colours: Colours that are a person's.
        passing_colours: Colours that are a look's.
        same_colour: Colours that are another one's.
        shown_by: Which variants show a colour that not all persons show.
        hidden: Parts that are too small to tell persons apart.
        unseen_parts: Variants that are in the test split only.
        unseen_colours: Colours that are in the test split only, by their names.
        still: Parts that stay where they are when the head tilts.
        neck: What it tilts about, in the canvas' units.
        eyes, nose, mouth: The parts that the five points are measured on.
        hair, clothes: The parts that captions have a place for.
        words: What captions say of a variant, with the names of colours in braces.
        skin: What they say of the skin.
    """

    name: str
    lasting: Weights
    passing: Weights
    lasting_colours: Mapping[str, Colours]
    passing_colours: Mapping[str, Colours]
    same_colour: Mapping[str, str]
    shown_by: Mapping[str, Set[tuple[str, str]]]
    hidden: Set[str]
    unseen_parts: Set[tuple[str, str]]
    unseen_colours: Set[tuple[str, str]]
    still: Set[str]
    neck: tuple[float, float]
    words: Mapping[str, Mapping[str, str]]
    skin: str
    eyes: str = "eyes"
    nose: str = "nose"
    mouth: str = "mouth"
    hair: str = "hair"
    clothes: str = "clothes"

    @property
    def colour_names(self) -> list[str]:
        """The names of all colours."""
        return [*self.lasting_colours, *self.passing_colours, *self.same_colour]


def evenly(*variants: str) -> dict[str, float]:
    """Returns the variants with equal weights."""
    return dict.fromkeys(variants, 1.0)


def _as_often(colours: Mapping[str, Rgb]) -> dict[str, tuple[Rgb, float]]:
    return {name: (rgb, 1.0) for name, rgb in colours.items()}


def micah() -> Kind:
    """Returns "Avatar Illustration System" by Micah Lanier (CC BY 4.0)."""
    skins = {
        "pale": (252, 214, 196),
        "fair": (241, 188, 164),
        "tan": (214, 150, 118),
        "brown": (166, 102, 76),
        "dark": (112, 62, 42),
    }
    hairs = {
        "black": (58, 52, 56),
        "brown": (118, 74, 44),
        "red": (196, 88, 52),
        "blond": (240, 208, 104),
        "gray": (152, 152, 158),
        "white": (240, 238, 236),
        "pink": (248, 146, 168),
        "blue": (96, 156, 226),
        "green": (104, 176, 110),
        "purple": (146, 118, 216),
    }
    cloths = {
        "red": (220, 66, 66),
        "orange": (242, 146, 62),
        "yellow": (246, 214, 92),
        "green": (92, 172, 92),
        "blue": (76, 122, 214),
        "purple": (144, 98, 200),
        "pink": (248, 158, 186),
        "white": (240, 240, 240),
        "black": (52, 52, 58),
    }
    frames = {"black": (30, 30, 34), "blue": (60, 110, 200), "gold": (226, 182, 74)}
    bald = {"dougFunny", "mrClean"}
    hair = evenly("dannyPhantom", "dougFunny", "fonze", "full", "mrClean", "mrT", "pixie")
    grown = {("hair", name) for name in hair if name not in bald} | {("hair", "turban")}
    return Kind(
        name="micah",
        lasting={
            "head": evenly("standard"),
            "hair": {**hair, "turban": 0.4},
            "facialHair": {"": 0.5, "beard": 0.3, "scruff": 0.2},
            "glasses": {"": 0.5, "round": 0.25, "square": 0.25},
            "earrings": {"": 0.6, "hoop": 0.25, "stud": 0.15},
            "ears": evenly("attached", "detached"),
            "nose": evenly("curve", "pointed", "tound"),
        },
        passing={
            "eyes": evenly("eyes", "round", "smiling"),
            "eyebrows": evenly("down", "up"),
            "mouth": evenly(
                "frown", "laughing", "nervous", "pucker", "sad", "smile", "smirk", "surprised"
            ),
            "clothes": evenly("collared", "crew", "open"),
        },
        lasting_colours={
            "base": _as_often(skins),
            "hair": {**_as_often(hairs), "purple": (hairs["purple"], 0.4)},
            "glasses": _as_often(frames),
            "earring": _as_often({"gold": (244, 208, 80), "silver": (216, 220, 228)}),
        },
        passing_colours={
            "shirt": _as_often(cloths),
            **{key: {"black": ((14, 14, 14), 1.0)} for key in ("eyes", "eyebrows", "mouth")},
        },
        same_colour={"facialHair": "hair"},
        shown_by={
            "hair": grown | {("hair", "dougFunny"), ("facialHair", "beard")},
            "glasses": {("glasses", "round"), ("glasses", "square")},
            "earring": set[tuple[str, str]](),
        },
        hidden={"head", "ears", "nose"},
        unseen_parts={("hair", "turban")},
        unseen_colours={("hair", "purple")},
        still={"clothes"},
        neck=(150.0, 290.0),
        words={
            "hair": {
                "dannyPhantom": "straight {hair} hair",
                "dougFunny": "three {hair} hairs",
                "fonze": "a {hair} quiff",
                "full": "long {hair} hair",
                "mrClean": "a bald head",
                "mrT": "a {hair} mohawk",
                "pixie": "a {hair} bob",
                "turban": "a {hair} turban",
            },
            "facialHair": {"beard": "a {hair} beard", "scruff": "stubble"},
            "glasses": {"round": "round {glasses} glasses", "square": "square {glasses} glasses"},
            "earrings": {"hoop": "a hoop earring", "stud": "a stud earring"},
            "mouth": {
                "frown": "frowning",
                "laughing": "laughing",
                "nervous": "grimacing",
                "pucker": "kissing",
                "sad": "sad",
                "smile": "smiling",
                "smirk": "smirking",
                "surprised": "surprised",
            },
            "clothes": {
                "collared": "a {shirt} collared shirt",
                "crew": "a {shirt} sweater",
                "open": "a {shirt} shirt",
            },
        },
        skin="{base} skin",
    )


KINDS = {"micah": micah}
