"""Captions of avatars: "a sad person with a red bob, fair skin and stubble, in a blue sweater"."""

import re

from diffusion.data.avatars.kind import Kind
from diffusion.data.avatars.people import Look, Person


def avatar_caption(kind: Kind, person: Person, look: Look) -> str:
    """Returns what a picture shows: the mouth, then hair, skin and what is worn."""
    said = {
        part: kind.words[part][variant]
        for part, variant in {**person.parts, **look.parts}.items()
        if part in kind.words
    }
    mouth, clothes, hair = (said.pop(part) for part in (kind.mouth, kind.clothes, kind.hair))
    *first, last = [hair, kind.skin, *said.values()]
    text = f"a {mouth} person with {', '.join(first)} and {last}, in {clothes}"
    return re.sub(r"\ba (?=[aeiou])", "an ", text.format(**person.named, **look.named))
