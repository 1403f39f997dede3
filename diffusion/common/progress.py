"""A progress bar with a rate."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def bar(unit: str, draw: bool = True, keep: bool = False) -> "Progress":
    """Returns a bar that shows how much of how much, the rate and the time that is left.

    It may be drawn beneath another one. What a task has as its field `note` stands behind.

    Args:
        unit: What is counted.
        draw: Whether to draw it at all.
        keep: Whether it stays when it is done, or vanishes.
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

    class Note(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields.get("note", ""))

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate()
    left = TimeRemainingColumn()
    return Progress(*columns, left, Note(), transient=not keep, disable=not draw)
