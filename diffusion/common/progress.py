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
    from rich import progress
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.speed or 0:.1f} {unit}/s")

    class Note(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(task.fields.get("note", ""))

    name, count = progress.TextColumn("{task.description}"), progress.MofNCompleteColumn()
    columns = name, progress.BarColumn(), count, Rate(), progress.TimeRemainingColumn(), Note()
    return progress.Progress(*columns, transient=not keep, disable=not draw)
