"""Counts that are in their range."""


def check_counts(owner: str, least: int = 1, **counts: int | None) -> None:
    """Refuses counts that are too small.

    Args:
        owner: Whose they are, such as "samples".
        least: The smallest that makes sense.
        **counts: By name; None is not looked at.

    Raises:
        ValueError: If one is below the least.
    """
    for name, value in counts.items():
        if value is not None and value < least:
            raise ValueError(f"{owner}.{name}: {value}; expected at least {least}")
