"""Several processes: where one dies or stops answering the others end too, and say which it was."""

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import NoReturn

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from diffusion.common import files
from diffusion.systems.checkpoints import latest
from diffusion.systems.trainer import attributes

TICK = 2.0  # seconds between two beats
SILENCE = 40.0  # seconds without one; the rest of a minute is for ending
GRACE = 8.0  # seconds that the first process has to notice by itself, and then saves
FAILED, LOST = "failed", "lost"  # instead of a beat: an error of its own; of another process


@dataclass
class Peer:
    """What one process knows of another, by the file that the other touches at every tick.

    Times are counted in one's own ticks: neither clocks that differ nor a whole run that was
    suspended for an hour say anything about a process.

    Attributes:
        rank: The other's number.
        path: Its file.
        seen: What was in the file, and when it was changed.
        beats: How often it has changed.
        silent: For how many ticks it has not.
    """

    rank: int
    path: Path
    seen: tuple[str, int] | None = None
    beats: int = 0
    silent: int = 0

    def look(self) -> str | None:
        """Returns what happened to it, once a tick: FAILED, LOST, other words, or None.

        Nothing happened to one that has no file: it has ended well, or not begun. One whose file
        never changed may be on a file system of its own.
        """
        try:
            with self.path.open() as file:  # opened anew, since NFS looks at the server then
                now = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            self.beats = self.silent = 0
            return None
        self.silent = self.silent + 1 if now == self.seen else 0
        self.beats += now != self.seen
        self.seen = now
        if now[0] in (FAILED, LOST):
            return now[0]
        where, process, host = now[0].split() or ("", "0", "")  # it is being written
        name = f"process {process} on {host}"
        if files.ended(where, int(process)):
            return f"({name}) died"
        if self.beats > 1 and self.silent * TICK >= SILENCE:
            return f"({name}) has not answered for {SILENCE:.0f} s"
        return None


class Watchdog(L.Callback):
    """Lets a thread of each process say that it lives, and look at the others.

    It uses files in the run's folder and no collective operation, so that a process may do
    something alone for as long as it likes. The first looks at all, the others look at the first,
    which tells them what it found. The process that failed speaks for itself; for one that cannot,
    the first does, or each machine's first. The others end in silence. With one process there is
    nothing to do.

    Attributes:
        why: Why this process has to end, or None; "" if it is to end in silence.
    """

    def __init__(self) -> None:
        self.file: Path | None = None
        self.children: list[Popen] = []
        self.why: str | None = None
        self.error: BaseException | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begins to beat, once the processes know each other."""
        if trainer.world_size == 1 or self.file or attributes(trainer).fast_dev_run:
            return
        self.rank, self.world, self.stage = trainer.global_rank, trainer.world_size, stage
        self.stop, self.noticed, self.judged = (threading.Event() for _ in range(3))
        self.run = Path(trainer.default_root_dir)
        folder = Path(trainer.strategy.broadcast(str(files.beside(self.run / "ranks"))))
        every = [Peer(rank, folder / str(rank)) for rank in range(self.world)]
        self.peers = every[1:] if self.rank == 0 else every[:1]
        self.speaks = self.rank <= 1 or trainer.local_rank == 0
        self.file = every[self.rank].path
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            # Lightning's own observer has the list, and would kill this process, too.
            watched, self.children = launcher.procs, [*launcher.procs]
            launcher.procs = self.children
            watched.clear()
        self.beat(self.file)
        threading.Thread(target=self._watch, args=[self.file], daemon=True, name="watchdog").start()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Says that this process ends well."""
        if self.file is not None:
            self.stop.set()
            with suppress(OSError):
                self.file.unlink()
                self.file.parent.rmdir()  # the last one can

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Finds out whose error this is, so that the first process can save without the others."""
        if self.file is None:
            return
        if not isinstance(exception, Exception):
            self.stop.set()  # all were told to stop, and do it together
            return
        if threading.current_thread() is threading.main_thread():
            # torchrun sends it, and the trainer would then ask the others.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        of_gloo = isinstance(exception, RuntimeError) and "gloo" in str(exception)
        judged = False
        if of_gloo or isinstance(exception, dist.DistError):  # another does not answer
            self.error = exception
            self.noticed.set()
            judged = self.judged.wait(SILENCE + GRACE)
        if not judged:
            self.tell(self.file, FAILED)
        trainer.strategy.barrier = lambda *_args, **_options: None  # nobody else would come
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()  # the others notice

    def beat(self, file: Path) -> None:
        """Touches the file, which needs no room on the disk; makes it if it is not there."""
        with suppress(OSError):
            try:
                os.utime(file)
            except FileNotFoundError:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{files.machine()} {os.getpid()} {socket.gethostname()}")

    def tell(self, file: Path, state: str) -> None:
        """Says instead of a beat why this process ends."""
        self.stop.set()
        with suppress(OSError):
            file.write_text(state)

    def look(self) -> bool:
        """Looks at the others, and returns whether this process has to end; then `why` says why."""
        for child in self.children:
            child.poll()
        for peer in self.peers:
            if (found := peer.look()) is not None:
                who = f"rank {peer.rank} of {self.world} {found}{self._signal(peer.rank)}"
                self.why = "" if found in (FAILED, LOST) else who
                return True
        return False

    def end(self) -> NoReturn:
        """Writes where this process was, says what happened to the other one, and ends with 1."""
        errors = self.run / "errors"
        with suppress(OSError), files.kept(errors / f"rank{self.rank}.txt") as aside:
            with aside.open("w") as file:
                if self.error is not None:
                    traceback.print_exception(self.error, file=file)
                else:
                    faulthandler.dump_traceback(file)
        until = time.monotonic() + (GRACE / 2 if self.why else 3 * GRACE)  # one may have to speak
        for child in self.children:
            try:
                child.wait(max(0, until - time.monotonic()))
            except TimeoutExpired:
                child.kill()
        if self.why and self.speaks:
            saved = f"{self._saved()}; " if self.stage == "fit" else ""
            where = f"where the others were is in {errors}"
            sys.stderr.write(f"diffusion: error: {self.why}; {saved}{where}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)  # whatever the main thread waits for

    def _watch(self, file: Path) -> None:
        while not self.stop.wait(TICK):
            self.beat(file)
            if not self.look() or self.stop.is_set():
                continue
            if self.rank == 0:
                self.tell(file, LOST)
                self.judged.set()
                if dist.get_backend() == "gloo" and self.noticed.wait(GRACE):
                    return  # the main thread saves, and ends
            self.end()

    def _signal(self, rank: int) -> str:
        """Returns which signal it was, if it is known; the children are ranks 1, 2 and so on."""
        codes = [child.returncode or 0 for child in self.children][rank - 1 : rank]
        name = next((signal.Signals(-code).name for code in codes if code < 0), "")
        hint = ", as where memory runs out" if name == "SIGKILL" else ""
        return f" by {name}{hint}" if name else ""

    def _saved(self) -> str:
        last = None
        with suppress(ValueError):
            last = latest.find(self.run / "checkpoints")
        return f"--ckpt_path last goes on from {last}" if last else "no checkpoint was saved yet"
