"""What speed.py measures of the quickstart: where a step's processor time goes, and the start."""

import argparse
import cProfile
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from pstats import Stats
from typing import Any

import lightning as L
from bench import Row
from lightning.pytorch import Callback
from speed import compared

from diffusion.cli.main import main as diffusion

CONFIG = "configs/quickstart.yaml"
OPERATORS = "PyTorch's operators, modules and optimizer"
WHERE = {  # the first that a file's path has in it says whose its time is
    "diffusion/common/muon": "Muon's orthogonal matrices",
    "diffusion/noise": "numbers drawn by counting",
    "diffusion/networks": "the network's own Python",
    "diffusion/data": "data",
    "diffusion/systems/averages": "callbacks, with averages and logs",
    "diffusion/callbacks": "callbacks, with averages and logs",
    "diffusion": "systems, objective and process",
    "lightning": "Lightning's loops and hooks",
    "torch": OPERATORS,
}
WHOLE = {"the network's own Python", "systems, objective and process"}  # their operators are not


def owner(path: str) -> str:
    """Returns whose the time of a file's functions is."""
    return next((name for part, name in WHERE.items() if f"/{part}" in path), "the rest")


def shares(stats: Stats) -> dict[str, float]:
    """Returns the share of each owner; what is built in is its caller's, or an operator."""
    found, every = Counter[str](), vars(stats)["stats"]
    for (path, _line, _name), (_, _, own, _, callers) in every.items():
        if path != "~":
            found[owner(path)] += own
            continue
        for caller, (_, _, part, _) in callers.items():
            name = owner(caller[0])
            found[OPERATORS if name in WHOLE or caller[0] == "~" else name] += part
    whole = sum(found.values())
    return {name: value / whole for name, value in found.most_common()}


class Watched(Callback):
    """Counts processor time by functions, from the 20th step on."""

    profiler = cProfile.Profile(time.process_time)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Begins."""
        if trainer.global_step == 20:
            self.profiler.enable()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Ends before what is done once."""
        if trainer.global_step == trainer.max_steps:
            self.profiler.disable()


def fit(folder: str, steps: int, *more: str) -> list[str]:
    """Returns the arguments of a short run of fit, without validation and pictures."""
    return [
        *("fit", "--config", CONFIG, "--wandb", "off", "--trainer.max_steps", str(steps), *more),
        *("--trainer.limit_val_batches", "0", "--samples.every_n_steps", str(steps + 1)),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.default_root_dir", folder),
    ]


def profile(args: argparse.Namespace) -> list[Row]:
    """Returns rows of shares of processor time, and of a whole run of one step."""
    with tempfile.TemporaryDirectory() as folder:
        diffusion(fit(folder, 420, "--trainer.callbacks+", f"{__name__}.Watched"))
    found = shares(Stats(Watched.profiler))
    rows: list[Row] = [{"part": "profile", "way": k, "share": f"{x:.4f}"} for k, x in found.items()]
    seconds: dict[str, list[float]] = {"import lightning.pytorch.cli": [], "fit, one step": []}
    for _ in range(1 + args.repeats // 2):
        with tempfile.TemporaryDirectory() as folder:
            for way, times in seconds.items():
                whole = way.startswith("fit")
                command = ["-m", "diffusion", *fit(folder, 1)] if whole else ["-c", way]
                began = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, capture_output=True)
                times.append(time.perf_counter() - began)
    seconds = {way: times[1:] for way, times in seconds.items()}  # the first finds no bytecode
    about = {"part": "start", "network": Path(CONFIG).stem, "what": "a process"}
    return rows + compared(seconds, 1, **about)
