"""Where figures go: always to CSV, and to Weights & Biases without ever waiting for it."""

import csv
import os
import uuid
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from diffusion.cli.runs.run_folder import is_first
from diffusion.common.files import reason, written_aside

PATIENCE = 3  # seconds that a server, or somebody who is asked for a key, has to answer
Wandb = Literal["off", "offline", "online"]


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


def make(run: Path, wandb: Wandb, job: str) -> list[Logger]:
    """Returns the loggers of a run.

    Args:
        run: The run's folder; `csv/version_N/metrics.csv` is written there.
        wandb: Whether to log to Weights & Biases. "online" falls back to "offline" with a word
            where there is no key or no network, or the server refuses; a resumed run goes on in
            the same W&B run.
        job: What the run does: fit, validate, test or predict.
    """
    found: list[Logger] = [Table(run, name="csv", flush_logs_every_n_steps=1)]
    if wandb != "off" and is_first():
        run.mkdir(parents=True, exist_ok=True)
        found.append(_wandb_logger(run, job, offline=wandb == "offline"))
    return found


def _wandb_logger(run: Path, job: str, offline: bool) -> Logger:
    import wandb
    from lightning.pytorch import loggers

    class OfflineAfterAll(loggers.WandbLogger):
        """Logs offline where there is no key, or the server cannot be had."""

        @property
        def experiment(self) -> Any:
            """The W&B run, begun when it is first asked for."""
            try:
                return super().experiment
            except wandb.Error as error:
                if self._offline:
                    raise
                rank_zero_warn(f"wandb: {str(error).splitlines()[0]}; logging offline")
                self._offline = True
                wandb.teardown()  # its settings were read when it was to be online
                return super().experiment

    if offline:
        os.environ.setdefault("WANDB_SILENT", "true")  # nothing to say until `wandb sync`
    return OfflineAfterAll(
        name=f"{run.name}-{job}",
        save_dir=run,
        project=os.environ.get("WANDB_PROJECT", "diffusion"),
        offline=offline,
        id=_identity(run, job),
        settings=wandb.Settings(init_timeout=PATIENCE, login_timeout=PATIENCE),
    )


def _identity(run: Path, job: str) -> str:
    path = run / f".wandb-{job}"
    if not path.exists() or not path.read_text():
        with written_aside(path) as aside:
            aside.write_text(uuid.uuid4().hex[:12])
    return path.read_text()
