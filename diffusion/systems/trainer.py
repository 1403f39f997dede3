"""What this project asks of Lightning's Trainer: its options, its data, its processes."""

from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from diffusion.common.schedules import most
from diffusion.data import Images

DEFAULTS: dict[str, Any] = {
    "check_val_every_n_epoch": None,
    "enable_model_summary": False,  # Summary says it in one line
    "inference_mode": False,  # guidance may need gradients while sampling
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # the data modules deal their batches themselves
    "val_check_interval": 1000,
}
LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 1,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
}
PRECISIONS = ("64", "64-true", "16-true", "bf16-true")


class Attributes(Protocol):
    """What a Trainer has, though Lightning's types do not say so."""

    callbacks: list[L.Callback]
    datamodule: L.LightningDataModule | None
    fast_dev_run: bool | int
    log_every_n_steps: int
    limit_val_batches: int | float | None
    limit_test_batches: int | float | None
    precision: str


def attributes(trainer: Any) -> Attributes:
    """Returns a Trainer as what it has."""
    return trainer


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """Returns a Trainer's callbacks."""
    return attributes(trainer).callbacks


def data_of(trainer: L.Trainer | None) -> Any:
    """Returns a trainer's data module, if there is one."""
    return None if trainer is None else attributes(trainer).datamodule


def training_steps(trainer: L.Trainer) -> int | None:
    """Returns how many optimizer steps a run has at most, all in all; None if nothing says so."""
    limits = [] if trainer.max_steps == -1 else [trainer.max_steps]
    data = data_of(trainer)
    known = isinstance(data, Images)
    batches = data.batches_per_epoch if known else trainer.num_training_batches
    if (epochs := trainer.max_epochs or -1) > 0 and batches not in (None, float("inf")):
        limits.append(epochs * -(-int(batches) // trainer.accumulate_grad_batches))
    return min(limits, default=None)


def check_schedule(
    trainer: L.Trainer, optimizer: OptimizerCallable, schedule: LRSchedulerCallable | None
) -> None:
    """Refuses to train on where a schedule of the learning rate has come to its end.

    Raises:
        ValueError: If it is for fewer steps than there will be.
    """
    steps = training_steps(trainer)
    if schedule is None or steps is None:
        return

    def fresh() -> Any:
        return schedule(optimizer([nn.Parameter(torch.zeros(1))]))

    if (few := most(fresh, steps)) is not None:
        raise ValueError(
            f"trainer.max_steps: {steps}; expected at most {few}, as the learning rate of "
            f"model.lr_scheduler, {type(fresh()).__name__}, ends there"
        )


def check_trainer(options: Mapping[str, Any]) -> None:
    """Refuses what Lightning takes without a word and then fails with, or does nothing.

    Args:
        options: Of the trainer.

    Raises:
        ValueError: If a number is out of its range, or the run has no folder.
    """
    for key, least in LEAST.items():
        value = options.get(key)
        if value is not None and value < least:
            raise ValueError(f"trainer.{key}: {value}; expected at least {least}")
    steps, interval = options.get("max_steps", -1), options.get("val_check_interval")
    if steps != -1 and steps < 1:
        raise ValueError(f"trainer.max_steps: {steps}; expected at least 1, or -1 for no end")
    if isinstance(interval, int | float) and interval <= 0:
        raise ValueError(f"trainer.val_check_interval: {interval}; expected at least 1")
    run = options.get("default_root_dir")
    if not run or Path(run).is_file():
        raise ValueError(f"trainer.default_root_dir: {run!r}; expected a folder for the run")


def check_precision(precision: str | int | None) -> None:
    """Refuses to hold weights, tables and averages in another precision than float32.

    Raises:
        ValueError: If it is one of the Trainer's others.
    """
    if str(precision) in PRECISIONS or str(precision).startswith("transformer-engine"):
        raise ValueError(
            f"trainer.precision: {precision}; expected 32-true, bf16-mixed or 16-mixed, as weights "
            "and their averages stay in float32"
        )


def check_stage(trainer: L.Trainer, stage: str) -> None:
    """Refuses a precision, and to measure on nothing; training without validation says so.

    Args:
        trainer: Lightning's, with data that is set up, if any.
        stage: "fit", "validate", "test" or "predict".

    Raises:
        ValueError: If nothing can come of it.
    """
    about, data = attributes(trainer), data_of(trainer)
    check_precision(about.precision)
    if stage == "predict":
        return
    known = isinstance(data, Images)
    if stage == "test":
        split, limit, pictures = "test", about.limit_test_batches, data.test_set if known else None
    else:
        split, limit, pictures = "val", about.limit_val_batches, data.val_set if known else None
    if limit == 0:
        why = f"trainer.limit_{split}_batches is 0"
    elif isinstance(pictures, Sized) and len(pictures) == 0:
        share = " (data.val_share)" if split == "val" else ""
        why = f"the split '{split}' of {type(data).__name__} is empty{share}"
    else:
        return
    if stage != "fit":
        command = "test" if split == "test" else "validate"
        raise ValueError(f"{command}: nothing to {command}, {why}; expected at least one batch")
    rank_zero_info(f"Nothing will be validated: {why}")


@contextmanager
def one_first(trainer: L.Trainer | None, name: str) -> Iterator[None]:
    """Runs a block in one process of each machine, then in the others, which find its files.

    Args:
        trainer: The processes'; None for this one alone.
        name: What is waited for.
    """
    if trainer and trainer.local_rank:
        trainer.strategy.barrier(name)
    yield
    if trainer and not trainer.local_rank:
        trainer.strategy.barrier(name)


def gather_rows(strategy: Any, x: Tensor) -> Tensor:
    """Returns the rows of all processes, the first process's first, on the CPU.

    Args:
        strategy: The Trainer's.
        x: This process's, (n, ...); the n of other processes may be another.
    """
    counts = strategy.all_gather(torch.tensor(len(x), device=x.device)).reshape(-1).tolist()
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    every = strategy.all_gather(padded).reshape(len(counts), *padded.shape).cpu()
    return torch.cat([part[:n] for part, n in zip(every, counts)])
