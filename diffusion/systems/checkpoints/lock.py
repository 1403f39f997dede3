"""One training a folder: a lock that ends with its process, however that ends."""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO

from lightning.pytorch.utilities import rank_zero_warn

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

NAME = ".lock"
BUSY = (errno.EACCES, errno.EAGAIN)
_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """Locks a folder for this process; does nothing if it has locked it already.

    The lock is one of POSIX, which forked data workers do not inherit. Where the file system has
    none, a word is said and nothing else.

    Args:
        folder: Where training writes its checkpoints; made if need be.

    Raises:
        FileExistsError: If another process holds it.
    """
    path = folder.absolute() / NAME
    if fcntl is None or path in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        file.close()
        if error.errno in BUSY:
            raise FileExistsError(
                f"trainer.default_root_dir: {folder} is in use, {holder} trains there; expected "
                "another folder, or that run to end first"
            ) from None
        rank_zero_warn(
            f"{folder} cannot be locked ({error.strerror}); let only one run train there"
        )
        return
    if not _is_at(file, path):
        file.close()
        return hold(folder)  # its holder has just removed it
    file.truncate(0)
    file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
    file.flush()
    _held[path] = file


def release(folder: Path | None = None) -> None:
    """Unlocks a folder, or all that this process holds; folders with nothing in them go away."""
    for path in list(_held) if folder is None else [folder.absolute() / NAME]:
        if file := _held.pop(path, None):
            with suppress(OSError):
                path.unlink()  # while it is locked: nobody else has this very file
                path.parent.rmdir()
                path.parent.parent.rmdir()
            file.close()


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
