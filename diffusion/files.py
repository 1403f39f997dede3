"""Files that are whole or not there at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a path beside the given one, which becomes it when the block ends without an error.

    A reader, or a second process that computes the same, never sees half a file. The folder is made
    if need be; the ending of the name stays, since many writers go by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yields a new folder beside the given one, which becomes it as in `written_aside`.

    Raises:
        FileExistsError: If there is a folder or file of this name.
    """
    if path.exists():
        raise FileExistsError(f"output: {path} exists; expected the name of a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.mkdir()
    try:
        yield aside
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
