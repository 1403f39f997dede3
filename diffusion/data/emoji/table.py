"""What each emoji shows: its name, class, keywords and skin tones, by code points.

Code points are written as the packages do, `1f468-200d-1f33e`, lower case and without U+FE0F, which
asks for the coloured form and is left out by some.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Subgroups of Unicode's emoji-test.txt in each class; flags, skin tones and hair are in none.
SUBGROUPS = {
    "face": "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy "
    "face-unwell face-hat face-glasses face-concerned face-negative face-costume",
    "animal face": "cat-face monkey-face",
    "heart": "heart",
    "emotion symbol": "emotion",
    "hand or body part": "hand-fingers-open hand-fingers-partial hand-single-finger "
    "hand-fingers-closed hands hand-prop body-parts",
    "person": "person person-resting person-symbol",
    "person gesturing": "person-gesture",
    "person at work": "person-role",
    "fantasy person": "person-fantasy",
    "person in motion": "person-activity",
    "person doing sport": "person-sport",
    "couple or family": "family",
    "animal": "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug",
    "plant": "plant-flower plant-other",
    "food or drink": "food-fruit food-vegetable food-prepared food-asian food-sweet drink dishware",
    "place": "place-map place-geographic place-building place-religious place-other hotel",
    "vehicle": "transport-ground transport-water transport-air",
    "clock": "time",
    "sky or weather": "sky-weather",
    "activity": "event award-medal sport game arts-crafts",
    "clothing": "clothing",
    "object": "sound music musical-instrument phone computer light-video book-paper "
    "money mail writing office lock tool science medical household other-object",
    "symbol": "transport-sign warning arrow religion zodiac av-symbol gender math punctuation "
    "currency other-symbol keycap alphanum geometric",
}

CLASSES = list(SUBGROUPS)
CLASS_OF = {name: c for c, key in enumerate(CLASSES) for name in SUBGROUPS[key].split()}
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
TONE = re.compile(r"-1f3f[b-f]")


@dataclass(frozen=True)
class Entry:
    """One emoji.

    Attributes:
        code: Its code points.
        base: Those of the same emoji without a skin tone: the concept.
        name: Of the concept, "woman farmer".
        subgroup: Of Unicode, "person-role".
        tags: Keywords.
        tones: Skin tones of the persons shown: none, one for all, or one for each.
    """

    code: str
    base: str
    name: str
    subgroup: str
    tags: tuple[str, ...] = ()
    tones: tuple[str, ...] = ()

    @property
    def label(self) -> int:
        """Number of the class in `CLASSES`."""
        return CLASS_OF[self.subgroup]


def code_points(code: str) -> str:
    """Returns code points as they are written here."""
    return code.lower().replace("_", "-").replace("-fe0f", "")


def from_emojibase(data: list[dict[str, Any]], groups: dict[str, Any]) -> dict[str, Entry]:
    """Returns the emoji of the classes by code points.

    Args:
        data: `en/data.json` of emojibase-data.
        groups: `meta/groups.json`.
    """
    found = {}
    for concept in data:
        subgroup = groups["subgroups"].get(str(concept.get("subgroup")))
        if subgroup not in CLASS_OF:
            continue
        base, tags = code_points(concept["hexcode"]), tuple(concept.get("tags", ()))
        for shown in (concept, *concept.get("skins", ())):
            tone = shown.get("tone", [])
            tones = tuple(TONES[i - 1] for i in (tone if isinstance(tone, list) else [tone]))
            code = code_points(shown["hexcode"])
            found[code] = Entry(code, base, concept["label"], subgroup, tags, tones)
    return found


def from_scistag(data: Mapping[str, dict[str, Any]]) -> dict[str, Entry]:
    """Returns those of `emoji_db.json` of scistag, which has no keywords."""
    emoji = {code_points(code): one for code, one in data.items()}
    emoji = {code: {**one, "name": one["name"] or "keycap: #"} for code, one in emoji.items()}
    code_of = {one["name"]: code for code, one in emoji.items()}
    found = {}
    for code, one in emoji.items():
        name, tones = _without_tones(one["name"])
        base = TONE.sub("", code)
        if base not in emoji:  # "kiss: person, person" is "kiss"
            base = code_of.get(name, code_of.get(name.partition(": ")[0], code))
        subgroup = _of_today(one["subgroup"], name)
        if subgroup in CLASS_OF:
            found[code] = Entry(code, base, emoji[base]["name"], subgroup, (), tones)
    return found


def _without_tones(name: str) -> tuple[str, tuple[str, ...]]:
    """Parts "kiss: woman, man, light skin tone, dark skin tone" into its name and its tones."""
    name, _, details = name.partition(": ")
    parts = details.split(", ") if details else []
    tones = tuple(x.removesuffix(" skin tone") for x in parts if x.endswith(" skin tone"))
    rest = [x for x in parts if not x.endswith(" skin tone")]
    return name + (": " + ", ".join(rest) if rest else ""), tones


def _of_today(subgroup: str, name: str) -> str:
    """Returns the subgroup that Unicode 17 has for what an older version grouped in another way."""
    if subgroup == "emotion" and ("heart" in name or name == "love letter"):
        return "heart"
    if subgroup == "food-marine":
        return "animal-marine"
    return subgroup.replace(" & ", "-")
