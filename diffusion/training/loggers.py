"""Where figures go: always to CSV, and to Weights & Biases without ever waiting for it."""

import os
import socket
import uuid
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

Wandb = Literal["off", "offline", "online"]


def make(run: Path, wandb: Wandb, job: str) -> list[Logger]:
    """Returns the loggers of a run.

    Args:
        run: The run's folder; `csv/version_N/metrics.csv` is written there.
        wandb: Whether to log to Weights & Biases. "online" falls back to "offline" with a word
            when there is no key or no network; a resumed run goes on in the same W&B run.
        job: What the run does: fit, validate, test or predict.
    """
    found: list[Logger] = [CSVLogger(run, name="csv", flush_logs_every_n_steps=1)]
    if wandb != "off" and rank_zero_only.rank == 0:
        from lightning.pytorch.loggers import WandbLogger

        offline = wandb == "offline" or not _reachable()
        if offline:
            os.environ.setdefault("WANDB_SILENT", "true")  # nothing to say until `wandb sync`
        run.mkdir(parents=True, exist_ok=True)
        found.append(
            WandbLogger(
                name=f"{run.name}-{job}",
                save_dir=run,
                project=os.environ.get("WANDB_PROJECT", "diffusion"),
                offline=offline,
                id=_identity(run, job),
            )
        )
    return found


def _identity(run: Path, job: str) -> str:
    path = run / f".wandb-{job}"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text()


def _reachable() -> bool:
    """Whether there is a key and a server; asks for at most three seconds."""
    import wandb

    settings = wandb.setup().settings
    url = urlparse(settings.base_url)
    if not _key(settings):
        rank_zero_warn("wandb: no API key (`wandb login`), logging offline")
        return False
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=3).close()
    except OSError as error:
        rank_zero_warn(f"wandb: {url.hostname} cannot be reached ({error}), logging offline")
        return False
    return True


def _key(settings: Any) -> str | None:
    """The key of the settings, or of `wandb login`, which keeps it in ~/.netrc."""
    from requests.utils import get_netrc_auth

    stored = get_netrc_auth(settings.base_url)
    return settings.api_key or (stored[1] if stored else None)
