"""Processes that read ahead: what is said where one dies or does not answer any more."""

import multiprocessing
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.signal_handling import _remove_worker_pids

PATIENCE = 60.0  # seconds
LATE = "no batch came from them"
DEAD = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is )?(.*?)\.?\s*$", re.MULTILINE)


class Loader(DataLoader[Any]):
    """A loader that ends its processes where no batch comes from them for too long.

    That is a minute, or a second for each picture of a batch, which one process reads alone. (The
    loader's own `timeout` does not count while a batch is handed over, which a stopped process
    does not take part in.)

    Attributes:
        pictures: In a batch.
    """

    pictures = 0

    @property
    def patience(self) -> float:
        """How many seconds a batch may take."""
        return max(PATIENCE, float(self.pictures))

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Iterates over batches."""
        batches = super().__iter__()
        return self._watched(batches) if self.num_workers else batches

    def _watched(self, batches: Any) -> Iterator[Any]:
        while True:
            late = threading.Event()
            timer = threading.Timer(self.patience, _kill, [batches._workers, late])
            timer.daemon = True
            timer.start()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                # Else PyTorch's handler of SIGCHLD may raise once more, in the middle of saving.
                _remove_worker_pids(id(batches))
                batches._worker_pids_set = False
                if late.is_set():
                    raise TimeoutError(f"{LATE} for {self.patience:.0f} s") from error
                raise
            finally:
                timer.cancel()
            yield batch


def loader(
    pictures: Dataset[Any],
    batches: Iterable[Any],
    batch_size: int,
    num_workers: int,
    keep: bool = True,
) -> Loader:
    """Returns a loader of whole batches of a set.

    Args:
        pictures: The set.
        batches: The numbers of each batch.
        batch_size: Pictures in a batch.
        num_workers: Processes that read ahead.
        keep: Whether they stay from one epoch to the next.
    """
    made = Loader(
        pictures,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=dict,  # sets hand over whole batches
        pin_memory=torch.cuda.is_available(),
        persistent_workers=keep and num_workers > 0,
    )
    made.pictures = batch_size
    return made


def lost(error: BaseException, num_workers: int) -> str | None:
    """Returns what happened to a process that reads ahead, in one line; None if nothing did.

    The others are ended then, by force, since one that hangs listens to nothing else.

    Args:
        error: Raised where its batch was waited for.
        num_workers: How many there are.
    """
    text = f"{error.__cause__}\n{error}"  # of which the first says more
    dead, late = DEAD.search(text), isinstance(error, TimeoutError) and LATE in text
    if not (dead or late or _cut_off(error)):
        return None
    _kill(multiprocessing.active_children())
    key = f"data.num_workers: {num_workers}"
    if late:
        return (
            f"{key}; {error}; expected a disk that answers, and a picture a second: a smaller "
            "data.batch_size, smaller files, or data.num_workers 0, which waits as long as it takes"
        )
    how = dead[1].lower() if dead else str(error).lower()
    return (
        f"{key}; one of them was lost ({how}); expected memory for all: fewer of them, or a "
        "smaller data.batch_size"
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps a process that reads ahead and dies from interrupting what is saved."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _kill(processes: Iterable[Any], said: threading.Event | None = None) -> None:
    if said is not None:
        said.set()
    for process in processes:
        process.kill()


def _cut_off(error: BaseException) -> bool:
    """Whether a batch could not be taken over, since its process was gone."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ConnectionError | EOFError) and any(
        frame.filename.endswith("torch/utils/data/dataloader.py") for frame in frames
    )
