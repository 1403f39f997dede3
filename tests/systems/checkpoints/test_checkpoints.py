import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.systems.checkpoints import latest, lock
from diffusion.systems.checkpoints.whole_files import write_checkpoint


def write(path, step):
    weights = {"w": torch.full((50,), float(step))}
    write_checkpoint({"state_dict": weights, "global_step": step}, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, the later of which last.ckpt points to."""
    for step in (100, 200):
        write(tmp_path / f"step_{step:07d}.ckpt", step)
    (tmp_path / "last.ckpt").symlink_to("step_0000200.ckpt")
    return tmp_path


def test_last_is_the_one_that_the_link_points_to(folder):
    assert latest.find(folder).name == "step_0000200.ckpt"


def test_a_checkpoint_that_the_link_was_not_moved_to_yet_is_the_last(folder):
    write(folder / "step_0000300.ckpt", 300)
    assert latest.find(folder).name == "step_0000300.ckpt"


def test_a_checkpoint_of_an_abandoned_branch_is_not_the_last(folder):
    old = write(folder / "step_0000300.ckpt", 300)
    os.utime(old, (1, 1))
    assert latest.find(folder).name == "step_0000200.ckpt"


@pytest.mark.parametrize("link", ["last.ckpt", "step_0000900.ckpt", None])
def test_last_needs_no_link(folder, link):
    (folder / "last.ckpt").unlink()
    if link:
        (folder / "last.ckpt").symlink_to(link)
    assert latest.find(folder).name == "step_0000200.ckpt"


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    at = content.index(torch.full((50,), 200.0).numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, empty, flip])
def test_a_damaged_checkpoint_is_left_out_with_a_word(folder, harm):
    harm(folder / "step_0000200.ckpt")
    with pytest.warns(UserWarning, match="step_0000200.ckpt is damaged"):
        assert latest.find(folder).name == "step_0000100.ckpt"


def test_a_copy_is_the_last_where_there_are_no_links(tmp_path):
    write(tmp_path / "step_0000100.ckpt", 100)
    write(tmp_path / "last.ckpt", 200)
    assert latest.find(tmp_path).name == "last.ckpt"


def test_no_checkpoint_at_all_is_no_error(tmp_path):
    assert latest.find(tmp_path) is None
    assert latest.find(tmp_path / "none") is None


@pytest.mark.parametrize("kind", ["cut", "self", "nothing"])
def test_checkpoints_of_which_none_is_whole_are_an_error(run, refused, kind):
    (folder := run.folder / "run/checkpoints").mkdir(parents=True)
    if kind == "cut":
        cut(write(folder / "step_0000100.ckpt", 100))
    else:
        target = "last.ckpt" if kind == "self" else "step_0000100.ckpt"
        (folder / "last.ckpt").symlink_to(target)
    for command in ("fit", "test"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(latest, "rank_zero_warn", lambda _: None)
            line = refused(command, "--config=tiny.yaml", "--ckpt_path=last")
        assert line.startswith("ckpt_path: last; expected a whole checkpoint in run/checkpoints")
    assert "has a run already" in refused("fit", "--config=tiny.yaml")


class Stop(Exception):
    pass


def stop_at(monkeypatch, batch):
    """Lets a micro-batch fail, counted from 1 in this process."""
    from diffusion.systems.diffusion import Diffusion

    step, seen = Diffusion.training_step, []

    def fail(self, *args):
        seen.append(1)
        if len(seen) == batch:
            raise Stop
        return step(self, *args)

    monkeypatch.setattr(Diffusion, "training_step", fail)


def names(run):
    return sorted(p.name for p in (run.folder / "run/checkpoints").glob("*.ckpt"))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resuming_between_micro_batches_never_links_last_to_itself(run, monkeypatch, stop):
    flags = ("--trainer.accumulate_grad_batches=2", "--checkpoint.every_n_steps=2")
    run.fit(*flags, "--trainer.max_steps=2")
    before = (run.folder / "run/checkpoints/step_0000002.ckpt").read_bytes()
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        with pytest.raises(Stop):
            run.fit(*flags, "--ckpt_path=last")
    step = 2 if stop < 3 else 3
    assert os.readlink(run.last) == f"step_{step:07d}.ckpt"
    assert run.load()["global_step"] == step
    if step == 2:
        assert Path(run.last).read_bytes() == before


@pytest.mark.slow
def test_keep_counts_what_was_saved_on_exceptions_and_by_earlier_calls(run, monkeypatch):
    last = []
    for stop in (2, 2, 3):
        with monkeypatch.context() as patch:
            stop_at(patch, stop)
            with pytest.raises(Stop):
                run.fit("--checkpoint.keep=2", "--trainer.max_steps=9", "--ckpt_path=last")
        last.append(run.load()["global_step"])
    assert last == [1, 2, 4]
    assert names(run) == ["last.ckpt", "step_0000002.ckpt", "step_0000004.ckpt"]
    run.fit("--checkpoint.keep=-1", "--trainer.max_steps=5", "--ckpt_path=last")
    assert len(names(run)) == 4
    run.fit("--checkpoint.keep=1", "--trainer.max_steps=6", "--ckpt_path=last")
    assert names(run) == ["last.ckpt", "step_0000006.ckpt"]


def test_files_of_more_steps_are_not_ours_to_remove(run):
    run.fit("--checkpoint.keep=-1", "--checkpoint.every_n_steps=2")
    ckpt = "run/checkpoints/step_0000002.ckpt"
    run("fit", "--ckpt_path", ckpt, "--trainer.max_steps=3", "--checkpoint.keep=1")
    assert names(run) == ["last.ckpt", "step_0000003.ckpt", "step_0000004.ckpt"]
    assert latest.find(run.folder / "run/checkpoints").name == "step_0000003.ckpt"


@pytest.mark.parametrize("flag", ["checkpoint.keep=0", "checkpoint.keep=-2"])
def test_keeping_nothing_is_refused(refused, flag):
    line = refused("fit", "--config=tiny.yaml", f"--{flag}")
    assert line.startswith("checkpoint.keep: ")
    assert "expected at least 1, or -1 for all" in line


def test_a_save_that_fails_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    path = write(tmp_path / "step_0000001.ckpt", 1)
    before = path.read_bytes()

    def fail(checkpoint, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        write(path, 2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_checkpoints_are_staged_in_their_own_folder(run, monkeypatch):
    """Whatever the folder for temporary files is, and whoever makes the trainer."""
    import tempfile

    import lightning as L

    from diffusion.data import Digits
    from diffusion.systems.diffusion import Diffusion

    seen = []
    make = torch.save
    monkeypatch.setattr(torch, "save", lambda c, f: seen.append(f.name) or make(c, f))
    monkeypatch.setattr(tempfile, "mkstemp", lambda *a, **k: pytest.fail("staged elsewhere"))
    model = Diffusion.load_from_checkpoint
    run.fit("--trainer.max_steps=1")
    network = model(run.last)
    trainer = L.Trainer(
        max_steps=2, max_epochs=-1, logger=False, accelerator="cpu", devices=1,
        use_distributed_sampler=False, callbacks=[Checkpoint(str(run.folder / "own"))],
        enable_progress_bar=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(network, datamodule=Digits(batch_size=8))
    assert [Path(name).parent for name in seen] == [
        run.folder / "run/checkpoints",
        run.folder / "own",
    ]
    assert torch.load(run.folder / "own/last.ckpt", weights_only=True)["global_step"] == 2
    assert trainer.checkpoint_callback.best_model_path.endswith("own/step_0000002.ckpt")


HOLD = """
import sys, time
from pathlib import Path
from diffusion.systems.checkpoints import lock
lock.hold(Path("run/checkpoints"))
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_folder_is_trained_in_once_at_a_time(run, refused):
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        line = refused("fit", "--config=tiny.yaml", "--wandb=offline")
        assert line.startswith("trainer.default_root_dir: run/checkpoints is in use")
        assert f"process {other.pid} of" in line
        assert sorted(p.name for p in run.folder.glob("run/**/*")) == [".lock", "checkpoints"]
    finally:
        other.kill()
        other.wait()
    run.fit()
    assert not lock._held


def test_where_there_are_no_locks_training_goes_on_with_a_word(run, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", fail)
    with pytest.warns(UserWarning, match="cannot be locked"):
        run.fit("--trainer.max_steps=1")
    assert run.load()["global_step"] == 1


def test_the_first_cause_is_reported_where_saving_fails_too(run, monkeypatch):
    stop_at(monkeypatch, 2)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("diffusion.systems.checkpoints.whole_files.write_checkpoint", fail)
    with pytest.warns(UserWarning, match="could not be saved.*No space"), pytest.raises(Stop):
        run.fit()


def test_a_full_disk_is_one_line_and_what_was_there_stays(run, refused, monkeypatch):
    run.fit("--trainer.max_steps=2")
    before = Path(run.last).read_bytes()

    def fail(checkpoint, file):
        raise OSError(errno.ENOSPC, "No space left on device", "run/checkpoints/step_4.ckpt")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusion.callbacks.checkpoint.rank_zero_warn", lambda _: None)
        patch.setattr("diffusion.systems.checkpoints.latest.rank_zero_info", lambda _: None)
        line = refused("fit", "--config=tiny.yaml", "--ckpt_path=last")
    assert line.startswith("run/checkpoints/step_4.ckpt: no space left on device; expected room")
    assert Path(run.last).read_bytes() == before
    assert names(run) == ["last.ckpt", "step_0000002.ckpt"]


def test_a_folder_that_cannot_be_written_to_is_known_before_training(run, refused, monkeypatch):
    monkeypatch.setattr(
        "diffusion.systems.diffusion.Diffusion.on_fit_start", lambda _: pytest.fail("it began")
    )
    (run.folder / "file").write_text("")
    line = refused("fit", "--config=tiny.yaml", "--trainer.default_root_dir=file/run")
    assert line.startswith("trainer.default_root_dir: file/run; expected a folder that can be")

    def fail(_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("diffusion.common.files._probe", fail)
    assert "(read-only file system)" in refused("fit", "--config=tiny.yaml")
    monkeypatch.undo()
    monkeypatch.chdir(run.folder)
    monkeypatch.setattr("tempfile.gettempdir", lambda: open("/nowhere/x"))
    assert refused("fit", "--config=tiny.yaml").startswith("TMPDIR: ")


def test_a_disk_too_small_for_the_weights_is_known_before_training(run, refused, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.terminal_size((0, 0)) and Full)
    line = refused("fit", "--config=tiny.yaml")
    assert re.match(r"trainer.default_root_dir: run has room for 0 MB; expected more than", line)


class Full:
    free = 100


def test_a_cache_that_cannot_be_written_to_is_known_before_the_test(fitted, run, refused):
    (run.folder / "file").write_text("")
    line = refused("test", "--ckpt_path", fitted.last, "--metrics.cache=file/cache")
    assert line.startswith("metrics.cache: file/cache; expected a folder that can be written to")


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_run_that_is_told_to_stop_saves_and_says_so_in_its_status(run, monkeypatch, name, status):
    import signal

    from diffusion.systems.diffusion import Diffusion

    step, seen = Diffusion.training_step, []

    def training_step(self, *args):
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(0.01)
        return step(self, *args)

    monkeypatch.setattr(Diffusion, "training_step", training_step)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            run.fit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == status
    assert run.load()["global_step"] == {"SIGTERM": 2, "SIGINT": 1}[name]


def test_a_prediction_that_is_told_to_stop_ends(fitted, run, monkeypatch):
    import signal

    from diffusion.systems.diffusion import Diffusion

    def generate(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    monkeypatch.setattr(Diffusion, "generate", generate)
    with pytest.raises(SystemExit) as end:
        run("predict", "--ckpt_path", fitted.last)
    assert end.value.code == 143
