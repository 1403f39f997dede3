import errno
import os
import subprocess
import sys
import time

import pytest

from diffusion.common import files
from diffusion.common.files import check_writable, folder_aside, kept, link, sweep, written_aside


def dead():
    """The number of a process that does not live any more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def debris(folder, machine=None, process=None, suffix=".png"):
    machine, process = machine or files.machine(), process or dead()
    path = folder / f".000001_3.part-{machine}-{process}{suffix}"
    path.write_bytes(b"half")
    return path


def test_what_a_killed_process_left_goes_away_with_the_next_write(tmp_path):
    left = debris(tmp_path)
    (tmp_path / f".model.part-{files.machine()}-{dead()}").mkdir()
    with written_aside(tmp_path / "x.png") as aside:
        aside.write_bytes(b"whole")
        assert aside.suffix == ".png"
    assert not left.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_what_others_write_just_now_stays(tmp_path):
    mine, theirs = debris(tmp_path, process=os.getppid()), debris(tmp_path, machine="0123abcd")
    users = tmp_path / ".notes-2024.png"
    users.write_bytes(b"mine")
    sweep(tmp_path)
    assert mine.exists()
    assert theirs.exists()
    assert users.exists()
    old = time.time() - 2 * files.STALE
    os.utime(theirs, (old, old))
    sweep(tmp_path)
    assert not theirs.exists()


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "x"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), written_aside(path) as aside:
        aside.write_text("a" * (aside.write_text("after") // 0))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_writer_that_hides_the_cause_does_not_hide_it(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="No space left") as error, written_aside(tmp_path / "x"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert error.value.errno == errno.ENOSPC

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_probe", full)
    with pytest.raises(OSError, match="No space left"), written_aside(tmp_path / "x"):
        raise RuntimeError("unexpected pos 576 vs 534")


@pytest.mark.parametrize("linked", [True, False])
def test_the_earlier_file_is_kept_and_the_name_is_there_all_the_time(tmp_path, monkeypatch, linked):
    if not linked:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(os, "link", lambda *_: open("/nowhere/x"), raising=False)
    path = tmp_path / "x.json"
    for text in "abc":
        with kept(path) as aside:
            aside.write_text(text)
    assert path.read_text() == "c"
    assert sorted(p.read_text() for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_link_is_moved_and_a_copy_where_there_are_none(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).write_text(name)
        link(tmp_path / "last", tmp_path / name)
        assert os.readlink(tmp_path / "last") == name
    monkeypatch.setattr("pathlib.Path.symlink_to", lambda *_: open("/nowhere/x"))
    link(tmp_path / "last", tmp_path / "a")
    assert (tmp_path / "last").read_text() == "a"
    assert not (tmp_path / "last").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "last"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(KeyError), folder_aside(tmp_path / "model"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with folder_aside(tmp_path / "model") as aside:
        (aside / "a").write_text("a")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^here: .*expected a folder that can be written to"):
        check_writable(tmp_path / "file", "here")
    check_writable(tmp_path / "new" / "folder", "here")
    assert not list((tmp_path / "new" / "folder").iterdir())
