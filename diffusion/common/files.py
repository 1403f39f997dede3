"""Files that are whole or not there at all."""

import errno
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from diffusion.common.processes import ended, machine

PART = re.compile(r"\..+\.part-([0-9a-f]{8})-(\d+)(\.[^.]*)?")
STALE = 24 * 3600  # seconds; what another machine left unfinished for longer is nobody's any more
EXPECTED = {
    errno.ENOSPC: "room on the disk (what was there before is intact)",
    errno.EDQUOT: "room in the quota (what was there before is intact)",
    errno.EROFS: "a disk that can be written to",
    errno.EACCES: "permission to read and write",
    errno.EPERM: "permission to read and write",
}
PROBE = 65536  # bytes; fewer may find room where a file does not
MODEL = "model.safetensors"  # of a folder that `diffusion export --to safetensors` wrote


@contextmanager
def written_aside(path: Path, durable: bool = True, folder: bool = False) -> Iterator[Path]:
    """Yields a path beside the given one, which becomes it when the block ends without an error.

    A reader, or a second process that computes the same, never sees half a file; a file that is
    there already stays until its successor is whole. The folder is made if need be; the ending of
    the name stays, since many writers go by it. What a killed process left unfinished goes away.

    Args:
        path: The file.
        durable: Whether the file has to survive a loss of power, which takes some milliseconds.
        folder: Whether it is a folder, made for the block to write into.

    Raises:
        OSError: If it cannot be written, also where the writer calls the reason something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _swept_once(path.parent.absolute())
    aside = beside(path)
    _remove(aside)  # of an earlier process with this number
    try:
        if folder:
            aside.mkdir()
        yield aside
        if durable:
            for file in (aside, *aside.rglob("*")):
                _flush(file)
        aside.replace(path)
        if durable:
            with suppress(OSError):  # some file systems cannot flush a folder
                _flush(path.parent)
    except Exception as error:
        _raise_cause(error, path)
        raise
    finally:
        _remove(aside)


@contextmanager
def kept(path: Path) -> Iterator[Path]:
    """Yields a path as `written_aside` does; a file that is there is kept under another name.

    Args:
        path: The file, say metrics.json; the earlier becomes metrics.YYYYmmdd-HHMMSS.json.
    """
    with written_aside(path) as aside:
        yield aside
        if path.exists():
            earlier = name_by_time(path)
            try:
                os.link(path, earlier)  # so that the name is there at any moment
            except OSError:  # no links here
                path.rename(name_by_time(path))


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yields a new folder beside the given one, which becomes it as in `written_aside`.

    Raises:
        FileExistsError: If there is a folder or file of this name.
    """
    if path.exists():
        raise FileExistsError(f"output: {path} exists; expected the name of a new folder")
    with written_aside(path, folder=True) as aside:
        yield aside


def check_writable(folder: Path, key: str) -> None:
    """Tries to write a small file, and removes what killed processes left unfinished.

    Args:
        folder: Made if need be.
        key: What the error calls it.

    Raises:
        OSError: If it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        _probe(folder)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OSError(
            f"{key}: {folder}; expected a folder that can be written to ({why})"
        ) from error


def sweep(folder: Path) -> None:
    """Removes what writers that do not live any more left unfinished in a folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := PART.fullmatch(path.name):
            where, process = match[1], int(match[2])
            mine = where == machine() and process == os.getpid()
            with suppress(OSError):  # another process was faster
                stale = time.time() - path.lstat().st_mtime > STALE
                if not mine and (stale or ended(where, process)):
                    _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # it is not there, or not ours to remove
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def reason(error: OSError) -> str:
    """Returns what went wrong in words: the file, what it was and what was expected."""
    if not error.strerror:
        return str(error)
    expected = EXPECTED.get(error.errno or 0)
    text = error.strerror.lower() + (f"; expected {expected}" if expected else "")
    return f"{error.filename}: {text}" if error.filename else text


def link(path: Path, target: Path) -> None:
    """Makes a path a link to a file beside it, or a copy where there are no links, at once."""
    aside = beside(path)
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(target.name)
    except OSError:
        shutil.copyfile(target, aside)
    aside.replace(path)


def beside(path: Path) -> Path:
    """Returns the name under which this process writes a file; see `sweep`."""
    return path.with_name(f".{path.stem}.part-{machine()}-{os.getpid()}{path.suffix}")


_swept_once = functools.cache(sweep)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _probe(folder: Path) -> None:
    file = beside(folder / "probe")
    try:
        file.write_bytes(bytes(PROBE))
        _flush(file)
    finally:
        _remove(file)


def _raise_cause(error: BaseException, path: Path) -> None:
    """Raises the OSError behind the error of a writer that does not name it, if there is one."""
    if isinstance(error, OSError):
        return
    number = re.search(r"\(os error (\d+)\)", str(error))  # Rust's way to say it
    if number:
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error
    try:
        _probe(path.parent)
    except OSError as cause:
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            return
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def name_by_time(path: Path) -> Path:
    """Returns a free name for the file that is there, after the time it was written."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    ends = chain([""], (f"-{i}" for i in count(2)))
    names = (path.with_name(f"{path.stem}.{stamp}{end}{path.suffix}") for end in ends)
    return next(name for name in names if not name.exists())


def decoded(path: Path, key: str) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with its mark.

    Args:
        path: The file.
        key: What errors call it.

    Raises:
        ValueError: If it is in another encoding.
    """
    content = path.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{key}: {path}; expected a text in UTF-8, line {line} is not") from error


def json_object(path: Path, key: str) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Args:
        path: The file.
        key: What errors call it.

    Raises:
        ValueError: If it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key}: {path}; expected JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{key}: {path}; expected an object, it is {type(content).__name__}")
    return content


def file_of(path: Path) -> Path:
    """Returns the file of weights that a path names: itself, or `MODEL` of an exported folder."""
    return path / MODEL if (path / MODEL).is_file() else path
