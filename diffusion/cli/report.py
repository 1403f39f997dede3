"""`python -m diffusion.cli.report RUN`: what a run has left, and its figures, in a table."""

import json
import sys
from pathlib import Path

FILES = {
    "checkpoints/last.ckpt": "checkpoint, averaged weights first",
    "samples.png": "samples, a row a class",
    "trajectory.png": "from noise on the left to samples on the right",
    "loss.png": "loss against images seen",
    "metrics.json": "all figures, and what they depend on",
}


def main(run: Path) -> None:
    """Prints the table of a run's folder."""
    from rich.console import Console
    from rich.table import Table

    from diffusion.metrics.report.record import notes

    console = Console()
    files = Table("file", "what it is", title=f"{run}", title_justify="left")
    for name, what in FILES.items():
        there = (run / name).exists()
        files.add_row(str(run / name) if there else f"[dim]{run / name}[/]", what)
    console.print(files)
    path = run / "metrics.json"
    if path.exists():
        record = json.loads(path.read_text())
        figures = Table("figure", "value", title_justify="left")
        for name, value in record["figures"].items():
            figures.add_row(name, f"{value:.4g}")
        console.print(figures)
        console.print("\n".join(notes(record)), markup=False, highlight=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
