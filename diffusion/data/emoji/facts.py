"""What is true of an emoji's picture, and what a text says of one."""

import re
from collections.abc import Iterable

from diffusion.common.palette import NAMES, named_colours
from diffusion.data.emoji.table import CLASS_OF, CLASSES, TONES, Entry

Facts = dict[str, frozenset[str]]

STYLES = ("google", "twitter", "microsoft", "openmoji")
TONE = "|".join(sorted(TONES, key=len, reverse=True))
SKIN = re.compile(rf"\b(?:{TONE})(?: and (?:{TONE}))* skin\b")
PHRASES = {subgroup.replace("-", " "): CLASSES[label] for subgroup, label in CLASS_OF.items()}
LONGEST_FIRST = "|".join(re.escape(x) for x in sorted(PHRASES, key=len, reverse=True))
CLASS = re.compile(rf"\b({LONGEST_FIRST}) picture\b")
# Words of every caption, or without a content of their own, and what is told by other facts.
EMPTY = frozenset(
    "and the with without for from off over has not facing emoji picture showing skin".split()
).union(STYLES, *(name.split() for name in NAMES))


def true_facts(style: str, entry: Entry, colours: Iterable[str]) -> Facts:
    """Returns style, skin tones, class, measured colours, and keywords: all words that fit it."""
    return {
        "style": frozenset([style]),
        "skin": frozenset(entry.tones),
        "class": frozenset([CLASSES[entry.label]]),
        "colour": frozenset(colours),
        "keyword": content(" ".join([entry.name, *entry.tags])),
    }


def said_facts(text: str, known: frozenset[str]) -> Facts:
    """Returns what a caption says, by the same kinds.

    Args:
        text: Any text; a class is said as in long captions, "person role picture".
        known: The words that are keywords of some picture; others say nothing.
    """
    rest = text.lower().replace("’", "'")
    skins, classes = SKIN.findall(rest), CLASS.findall(rest)
    words = content(CLASS.sub("", SKIN.sub("", rest)))
    return {
        "style": frozenset(re.findall(r"\w+", rest)) & {*STYLES},
        "skin": frozenset(tone for found in skins for tone in re.findall(rf"(?:{TONE})\b", found)),
        "class": frozenset(PHRASES[phrase] for phrase in classes),
        "colour": frozenset(named_colours(rest)),
        "keyword": words & known,
    }


def content(text: str) -> frozenset[str]:
    """Returns the words of three letters or more that say what is to be seen."""
    return frozenset(x for x in re.findall(r"[^\W\d_]{3,}", text.lower()) if x not in EMPTY)
