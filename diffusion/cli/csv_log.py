"""The log that is always written, `csv/version_N/metrics.csv`."""

import csv
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from diffusion.common.files import reason, written_aside


class Rows(ExperimentWriter):
    """Rows that stay where they are until a table with more columns is whole."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with written_aside(path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)


class Table(CSVLogger):
    """Lightning's logger, whose file is never half a table."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Where rows are added."""
        if not isinstance(self._experiment, Rows):
            Path(self.root_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = Rows(log_dir=self.log_dir)
        return self._experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left; where training failed, that is what is reported, and not this."""
        try:
            super().finalize(status)
        except OSError as error:
            if status == "success":
                raise
            rank_zero_warn(f"the last figures could not be written: {reason(error)}")
