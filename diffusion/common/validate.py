"""Checks of arguments: a mistake is one line, `owner.name: value; expected …`."""

from collections.abc import Sequence
from typing import Any


def check_counts(
    owner: str, least: int = 1, *, most: int | None = None, **counts: int | None
) -> None:
    """Refuses counts that are too small or too large.

    Args:
        owner: Whose they are, such as "samples".
        least: The smallest that makes sense.
        most: The largest that does, or None.
        **counts: By name; None is not looked at.

    Raises:
        ValueError: If one is below the least or above the most.
    """
    for name, value in counts.items():
        if value is not None and (value < least or (most is not None and value > most)):
            right = f"at least {least}" if most is None else f"{least} … {most}"
            raise ValueError(f"{owner}.{name}: {value}; expected {right}")


def check_shares(owner: str, **shares: float) -> None:
    """Refuses what is no share of a whole, nor nothing of it.

    Raises:
        ValueError: If one is not in [0, 1).
    """
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"{owner}.{name}: {value}; expected 0 ≤ {name} < 1")


def check_choice(owner: str, choices: Sequence[Any], **values: Any) -> None:
    """Refuses values that are none of a few.

    Raises:
        ValueError: If one is not.
    """
    for name, value in values.items():
        if value not in choices:
            right = ", ".join(map(str, choices))
            raise ValueError(f"{owner}.{name}: {value}; expected one of {right}")


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """Returns the first of some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
