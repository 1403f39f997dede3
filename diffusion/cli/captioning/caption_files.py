"""Where pictures are read from and their captions go: beside each, or all into one file."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from torch import Tensor

from diffusion.common.files import check_writable, kept, written_aside
from diffusion.data.reading.listing import list_pictures
from diffusion.data.sets import ImageSet
from diffusion.metrics.report import html

PAGE = "captions.html"
SHOWN = 500  # pictures at most on a page that holds them


class Destination(ABC):
    """Pictures by name, and their captions.

    Attributes:
        key: What errors call it, "folder: pictures".
        total: How many pictures there are.
    """

    key: str
    total: int

    @abstractmethod
    def missing(self) -> list[str]:
        """Returns the names of the pictures without captions, once these can be written.

        Raises:
            OSError: If they cannot be.
        """

    @abstractmethod
    def read(self, name: str) -> Tensor | None:
        """Returns a picture, uint8 (C, H, W), or None if it cannot be read."""

    @abstractmethod
    def write(self, captions: Mapping[str, Sequence[str]]) -> None:
        """Writes the captions of some pictures."""

    @abstractmethod
    def page(self) -> Path:
        """Writes a page to look through, and returns where; an earlier one is renamed."""


class BesideFiles(Destination):
    """A .txt or .json file beside each picture of a folder.

    Pictures of one name, 1.jpg and 1.png, share their caption: the first one's.

    Args:
        root: The folder.
        picture: Reads one, uint8 (C, H, W), or raises ValueError.
        format: "txt" or "json".
        key: Of a .json file.

    Raises:
        FileNotFoundError: If it is missing or holds no picture.
    """

    def __init__(
        self, root: Path, picture: Callable[[Path], Tensor], format: str, key: str
    ) -> None:
        self.root, self.picture, self.format, self.field = root, picture, format, key
        self.key, found = f"folder: {root}", list_pictures(root, "folder").names
        self.pictures = list({self._file(name): name for name in reversed(found)}.values())[::-1]
        self.total = len(self.pictures)

    def _file(self, name: str) -> Path:
        return (self.root / name).with_suffix(f".{self.format}")

    def missing(self) -> list[str]:
        """See `Destination`."""
        found = [name for name in self.pictures if not self._file(name).exists()]
        for folder in sorted({self.root, *((self.root / name).parent for name in found)}):
            check_writable(folder, "folder")
        return found

    def read(self, name: str) -> Tensor | None:
        """See `Destination`."""
        try:
            return self.picture(self.root / name)
        except ValueError:
            return None

    def write(self, captions: Mapping[str, Sequence[str]]) -> None:
        """See `Destination`."""
        for name, texts in captions.items():
            lines = {"txt": texts[0], "json": json.dumps({self.field: texts}, ensure_ascii=False)}
            with written_aside(self._file(name), durable=False) as aside:
                aside.write_text(lines[self.format] + "\n", encoding="utf-8")

    def page(self) -> Path:
        """See `Destination`; pictures are shown from their files."""
        texts = {name: self._texts(self._file(name)) for name in self.pictures}
        return write_page(
            self.root / PAGE,
            {name: found for name, found in texts.items() if found},
            lambda name: f'<img width="128" loading="lazy" alt="" src="{quote(name)}">',
        )

    def _texts(self, file: Path) -> Sequence[str]:
        """Returns what a file has, [] if it is another's and has nothing."""
        try:
            text = file.read_text(encoding="utf-8-sig")
            found = json.loads(text)[self.field] if self.format == "json" else text
            return [found.strip()] if isinstance(found, str) else [str(x) for x in found]
        except (OSError, ValueError, KeyError, TypeError):
            return []


class OneFile(Destination):
    """One JSON file {name: [caption, …]} of a data set's pictures.

    Args:
        path: The file; captions that it has stay.
        names: Of the pictures.
        pictures: As many.

    Raises:
        ValueError: If the file is there and holds something else.
    """

    def __init__(self, path: Path, names: Sequence[str], pictures: ImageSet) -> None:
        self.path, self.pictures, self.key = path, pictures, f"output: {path}"
        self.number, self.total = {name: i for i, name in enumerate(names)}, len(names)
        self.found: dict[str, list[str]] = {}
        if path.exists():
            try:
                known = dict(json.loads(path.read_text(encoding="utf-8-sig")))
                self.found = {name: [str(x) for x in texts] for name, texts in known.items()}
            except (ValueError, TypeError):
                raise ValueError(
                    f"{self.key} is there; expected JSON {{name: [caption, …]}}, or no file"
                ) from None

    def missing(self) -> list[str]:
        """See `Destination`."""
        check_writable(self.path.parent, "output")
        return [name for name in self.number if name not in self.found]

    def read(self, name: str) -> Tensor:
        """See `Destination`."""
        image: Tensor = self.pictures.__getitems__([self.number[name]])["image"]
        return image[0]

    def write(self, captions: Mapping[str, Sequence[str]]) -> None:
        """See `Destination`; the whole file is written anew."""
        self.found |= {name: list(texts) for name, texts in captions.items()}
        text = json.dumps(self.found, ensure_ascii=False, indent=0)
        with written_aside(self.path, durable=False) as aside:
            aside.write_text(text + "\n", encoding="utf-8")

    def page(self) -> Path:
        """See `Destination`; of many pictures it has some, evenly spread."""
        names = [name for name in self.number if name in self.found]
        some = names[:: max(1, -(-len(names) // SHOWN))]
        return write_page(
            self.path.with_suffix(".html"),
            {name: self.found[name] for name in some},
            lambda name: html.picture(self.read(name), name, zoom=3),
        )


def write_page(
    path: Path, captions: Mapping[str, Sequence[str]], image: Callable[[str], str]
) -> Path:
    """Writes a page of pictures beside their captions, and returns its path."""
    rows = [
        [image(name), f"<small>{escape(name)}</small>", "<br>".join(map(escape, texts))]
        for name, texts in captions.items()
    ]
    parts = ["<h1>Captions</h1>", html.html_table(["", "picture", "caption"], rows)]
    with kept(path) as aside:
        aside.write_text(html.page("Captions", parts), encoding="utf-8")
    return path
