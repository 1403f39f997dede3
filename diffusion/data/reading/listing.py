"""Which files of a folder are its pictures, and what there is besides."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.common.validate import first_few

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
# Endings of pictures that are not read, so that somebody has to convert them.
OTHERS = frozenset(
    ".tif .tiff .avif .heic .heif .svg .svgz .jxl .jp2 .j2k .jfif .psd .tga .ppm .pgm .pbm .ico "
    ".exr .hdr .dng .cr2 .cr3 .nef .arw .orf .raw .eps .apng .xcf".split()
)


@dataclass
class Listing:
    """What was found under a folder, as paths relative to it.

    Attributes:
        names: Pictures, sorted.
        others: Pictures in formats that are not read.
        folders: The subfolders of the first level.
        repeated: Folders and links that would lead to what is read already.
        closed: Folders that cannot be opened.
    """

    names: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def formats(self) -> str:
        """Returns the endings that are not read, with their counts, such as "12 .tif, 1 .heic"."""
        counts = Counter(map(_suffix, self.others))
        return ", ".join(f"{n} {suffix}" for suffix, n in counts.most_common())

    def left_out(self, kept: Sequence[str], folders: Sequence[str]) -> str:
        """Returns what is not read, in one line; "" if all is.

        Args:
            kept: The pictures that are.
            folders: The subfolders that should have some.
        """
        full = {name.split("/")[0] for name in kept}
        found = Counter(name.split("/")[0] for name in (*self.names, *self.others))
        empty = [f"{x} (0 of {found[x]} pictures)" for x in folders if x not in full]
        parts = (
            (f"{self.formats()}, convert them to one of {', '.join(SUFFIXES)}", self.others),
            (f"all of {first_few(empty, 10)}", empty),
            (f"links to what is read already: {first_few(self.repeated, 10)}", self.repeated),
            (f"folders that cannot be opened: {first_few(self.closed, 10)}", self.closed),
        )
        return "; ".join(text for text, things in parts if things)


def list_pictures(root: Path, key: str = "data.root") -> Listing:
    """Returns the pictures under a folder; hidden files and folders are left out.

    Each folder is read once, whatever links lead to it: where it really lies under the root, or
    else by the first link to it, in the order of their names. A link to a folder that contains the
    link, or the root, is not followed.

    Args:
        root: The folder.
        key: What errors call it.

    Raises:
        FileNotFoundError: If the folder is missing or holds no picture.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{key}: {root}; expected a folder with pictures, there is none")
    found, seen, links, closed = Listing(), set[tuple[int, int]](), [root], list[OSError]()
    while links:
        for folder, folders, files in os.walk(links.pop(0), onerror=closed.append):
            name, stat = os.path.relpath(folder, root), os.stat(folder)
            place = (stat.st_dev, stat.st_ino)
            if place in seen or (name != "." and _leads_back(root, Path(folder))):
                found.repeated.append(name)
                folders.clear()
                continue
            seen.add(place)
            folders[:] = sorted(x for x in folders if not x.startswith("."))
            links += [path for x in folders if (path := Path(folder, x)).is_symlink()]
            paths = [os.path.normpath(f"{name}/{x}") for x in files if not x.startswith(".")]
            found.names += [path for path in paths if _suffix(path) in SUFFIXES]
            found.others += [path for path in paths if _suffix(path) in OTHERS]
            if name == ".":
                found.folders = [*folders]
        links.sort()
    if not found.names:
        other = f" but {found.formats()}" if found.others else ""
        raise FileNotFoundError(
            f"{key}: {root}; expected pictures, {', '.join(SUFFIXES)}, it holds none{other}"
        )
    found.names.sort()
    found.closed = [os.path.relpath(error.filename, root) for error in closed]
    return found


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _leads_back(root: Path, path: Path) -> bool:
    """Whether a link leads to a folder that contains it, or the root."""
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    inner = (os.path.realpath(place) for place in (root, path.parent))
    return any(os.path.commonpath([target, place]) == target for place in inner)
