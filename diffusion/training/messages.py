"""Errors for people: one line that names what would have been right."""

import difflib
import re
from collections.abc import Iterable


def one_line(message: str, known: Iterable[str] = ()) -> str:
    """Shortens a parser's message to a line, and names the nearest thing that exists.

    Args:
        message: The parser's message, often a long nest of attempts.
        known: Names that exist: keys and classes.
    """
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    text = next((line for line in lines if UNKNOWN.search(line)), lines[0] if lines else message)
    if len(lines) > 1 and text == lines[0] and not UNKNOWN.search(text):
        text = f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") else text
    match = UNKNOWN.search(text)
    if match:
        asked = next(g for g in match.groups() if g).split(".")[-1].split("=")[0].strip("-'\"")
        near = nearest(asked, known)
        if near:
            text = f"{text.rstrip('.')}; the nearest valid name is '{near}'"
    return text


UNKNOWN = re.compile(
    r"[Kk]ey '([^']+)' is not expected"
    r"|[Uu]nrecognized arguments?: (\S+)"
    r"|[Uu]nexpected class path '([^']+)'"
    r"|[Ii]mport path (\S+)"
    r"|is not a subclass of \S+: (\S+)"
    r"|Not a valid subclass of \w+\S* Got value: (\S+)"
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the name that is most like the given one, or None if none is."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return found[0] if found else None
