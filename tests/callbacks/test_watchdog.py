"""Processes and data workers that die or stop answering: one line, and what was trained is kept."""

import os
import re
import subprocess
import sys

import pytest
from torch.utils.data import get_worker_info

from diffusion.callbacks import watchdog
from diffusion.callbacks.watchdog import Peer
from diffusion.common import files
from diffusion.data.reading import workers
from diffusion.data.reading.order import Shuffled
from diffusion.data.reading.workers import Loader, lost


@pytest.fixture
def peer(tmp_path):
    """Another process, whose file says that it is this one; `beat` touches it."""

    class Beating(Peer):
        def write(self, text):
            self.path.write_text(text)

        def beat(self):
            self.times = getattr(self, "times", 0) + 1
            os.utime(self.path, ns=(self.times, self.times))

    made = Beating(1, tmp_path / "1")
    made.write(f"{files.machine()} {os.getpid()} here")
    return made


def test_one_that_does_not_beat_for_long_is_lost(peer):
    for _ in range(100):
        peer.beat()
        assert peer.look() is None
    looks = round(watchdog.SILENCE / watchdog.TICK)
    found = [peer.look() for _ in range(looks)]
    assert found == [None] * (looks - 1) + [
        f"(process {os.getpid()} on here) has not answered for 40 s"
    ]
    peer.beat()
    assert peer.look() is None


def test_a_file_that_never_changed_says_nothing(peer):
    assert [peer.look() for _ in range(100)] == [None] * 100


def test_one_that_has_ended_well_is_not_lost(peer):
    for _ in range(3):
        peer.beat()
        peer.look()
    peer.path.unlink()
    assert [peer.look() for _ in range(100)] == [None] * 100


def test_one_that_is_dead_is_lost_at_once_on_this_machine_only(peer):
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    peer.write(f"{files.machine()} {child.pid} here")
    assert peer.look() is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(2):  # at first as a zombie
        assert peer.look() == f"(process {child.pid} on here) died"
        child.communicate()
    peer.write(f"other {child.pid} there")
    assert peer.look() is None


@pytest.mark.parametrize("state", [watchdog.FAILED, watchdog.LOST])
def test_one_can_say_so_itself(peer, state):
    peer.write(state)
    assert peer.look() == state


def test_half_a_file_says_nothing(peer):
    peer.write("")
    assert peer.look() is None


def test_one_process_has_no_watchdog(run, extra, monkeypatch):
    begun = []
    monkeypatch.setattr(watchdog.Watchdog, "beat", lambda self: begun.append(1))
    run.fit("--trainer.max_steps=1")
    assert not begun
    assert not list((run.folder / "run").glob(".ranks*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SIGKILL", "one of them was lost ("),
        ("SIGSTOP", "no batch came"),
    ],
)
def test_a_data_worker_that_is_lost_ends_training_in_a_line(run, refused, monkeypatch, name, words):
    import signal

    read = Shuffled.__getitems__

    def failing(self, positions):
        if get_worker_info() is not None and min(positions) >= 64:
            os.kill(os.getpid(), getattr(signal, name))
        return read(self, positions)

    monkeypatch.setattr(Shuffled, "__getitems__", failing)
    monkeypatch.setattr(workers, "PATIENCE", 3.0)
    monkeypatch.setattr(workers.Loader, "pictures", property(lambda _: 0, lambda *_: None))
    line = refused("fit", "--config=tiny.yaml", "--trainer.max_steps=20", "--data.num_workers=1")
    assert line.startswith("data.num_workers: 1; ")
    assert words in line
    assert run.load()["global_step"] >= 4


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "killed by signal: killed"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "exited unexpectedly"),
    ],
)
def test_what_pytorch_says_of_a_lost_worker(text, how):
    line = lost(RuntimeError(text), 2)
    assert line is not None
    assert line.startswith(f"data.num_workers: 2; one of them was lost ({how}); expected")
    assert lost(RuntimeError("something else"), 2) is None


def test_a_batch_may_take_a_second_a_picture():
    loader = Loader([])
    assert loader.patience == 60
    loader.pictures = 500
    assert loader.patience == 500


LOST = """
import os
import signal

import lightning as L

from diffusion.callbacks import watchdog

watchdog.SILENCE, watchdog.TICK = 8.0, 0.2


class Lost(L.Callback):
    def __init__(self, rank: int, how: str):
        self.rank, self.how = rank, how

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 6 and trainer.global_rank == self.rank:
            if self.how == "error":
                raise ValueError("data.root: broken; expected otherwise")
            os.kill(os.getpid(), getattr(signal, self.how))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "rank", "words", "step"),
    [
        ("SIGKILL", 1, r"rank 1 of 2 \(process \d+ on \S+\) died by SIGKILL", 6),
        ("SIGKILL", 0, r"rank 0 of 2 \(process \d+ on \S+\) died", 4),
        ("SIGSTOP", 1, r"rank 1 of 2 \(process \d+ on \S+\) has not answered for 8 s", 4),
        ("error", 1, r"data.root: broken; expected otherwise", 6),
    ],
)
def test_where_a_process_is_lost_the_others_end_in_a_line(run, how, rank, words, step):
    (run.folder / "lost.py").write_text(LOST)
    flags = ["--trainer.devices=2", "--trainer.strategy=ddp", "--checkpoint.every_n_steps=4"]
    flags += ["--trainer.max_steps=1000000", "--trainer.callbacks=lost.Lost"]
    flags += [f"--trainer.callbacks.rank={rank}", f"--trainer.callbacks.how={how}"]
    ended = subprocess.run(
        [sys.executable, "-m", "diffusion", "fit", "--config=tiny.yaml", *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode in ((-9,) if rank == 0 else (1,))
    assert "Traceback" not in ended.stderr
    (line,) = re.findall(r"^diffusion: error: (.*)$", ended.stderr, re.MULTILINE)
    assert re.match(words, line)
    last = f"run/checkpoints/step_{step:07d}.ckpt"
    assert f"--ckpt_path last goes on from {last}; where the others" in line or how == "error"
    assert run.load(last)["global_step"] == step
    (file,) = (run.folder / "run/errors").iterdir()
    assert file.name == f"rank{1 - rank}.txt"
    assert re.search(r"most recent call (first|last)", file.read_text())
