"""`python -m diffusion.cli.report RUN`: what a run has left, and its figures, in a table."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffusion.callbacks.summary import FILES
from diffusion.metrics.report.record import figures_table, notes


def main(run: Path) -> None:
    """Prints the table of a run's folder."""
    console = Console()
    files = Table("file", "what it is", title=f"{run}", title_justify="left")
    for name, what in FILES.items():
        if (run / name).exists():
            files.add_row(str(run / name), what)
    console.print(files)
    if (run / "metrics.json").exists():
        record = json.loads((run / "metrics.json").read_text())
        console.print(figures_table(record["figures"], notes(record)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
