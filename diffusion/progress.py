"""A progress bar with a rate."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def bar(unit: str, draw: bool = True) -> "Progress":
    """Returns a bar that shows how much of how much, the rate and the time that is left.

    It vanishes when it is done, and may be drawn beneath the trainer's own.

    Args:
        unit: What is counted.
        draw: Whether to draw it at all.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} {unit}/s")

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, Rate(), TimeRemainingColumn(), transient=True, disable=not draw)
