"""Captions of an emoji, a short one and a long one.

short: a google emoji of a woman farmer with dark skin
long: a google emoji of a woman farmer with dark skin. brown and green person role picture, showing
    rancher, gardener
"""

import hashlib
import re

from diffusion.data.emoji.table import Entry

KEYWORDS = 4


def captions(kind: str, style: str, entry: Entry, colours: list[str]) -> tuple[str, ...]:
    """Returns the "short" caption, the "long" one, or "both"."""
    both = {"short": short(style, entry), "long": long(style, entry, colours)}
    return tuple(both.values()) if kind == "both" else (both[kind],)


def short(style: str, entry: Entry) -> str:
    """Returns the style, the name and the skin tones."""
    name = entry.name.replace("’", "'").replace("keycap: ", "keycap ").replace(": ", ", ")
    tones = f" with {' and '.join(entry.tones)} skin" if entry.tones else ""
    return of_style(style, f"{_article(name)}{name}{tones}")


def of_style(style: str, what: str) -> str:
    """Returns what every caption begins with, and what there is to see, with its article."""
    return f"{_article(style)}{style} emoji of {what}"


def long(style: str, entry: Entry, colours: list[str]) -> str:
    """Adds the colours, the subgroup and up to four keywords that the name lacks.

    Which keywords, and in which order, depends on style and code points.
    """
    left = [x for x in entry.tags if _is_word(x) and x.lower() not in entry.name.lower()]
    key = f"{style} {entry.code} "
    left.sort(key=lambda tag: hashlib.sha256((key + tag).encode()).digest())
    showing = f", showing {', '.join(left[:KEYWORDS])}" if left else ""
    subgroup = entry.subgroup.replace("-", " ")
    return f"{short(style, entry)}. {' and '.join(colours)} {subgroup} picture{showing}"


def _article(name: str) -> str:
    """Returns the article in front of a name, none in front of a plural."""
    head = re.split(r" (?:with|in|of|at|over|on|without|facing)\b|,", name)[0]
    if re.match(r"(people|men|women|two)\b(?!')", head) or re.search(r"(?<![sui'])s$", head):
        return ""
    return "an " if re.match(r"(?!uni|eu|one|ut|UFO)[aeiouAEIOU]|hour|SOS|NG", name) else "a "


def _is_word(tag: str) -> bool:
    return re.fullmatch(r"[^\W\d_][\w '-]*", tag) is not None
