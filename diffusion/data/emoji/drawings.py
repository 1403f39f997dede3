"""Getting the packages and drawing the pictures in them, once: a file for each style and size.

Its name has a hash of the archives and of `RECIPE`, so a file that was made otherwise is not read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.common.files import check_writable, written_aside
from diffusion.common.hashing import digest
from diffusion.common.packages import obtain
from diffusion.common.progress import bar
from diffusion.data.emoji.colours import colours
from diffusion.data.emoji.packs import (
    EMOJIBASE,
    LINES,
    PACKS,
    SCISTAG,
    black,
    emojibase,
    pack,
    scistag,
)
from diffusion.data.emoji.table import Entry
from diffusion.data.reading.svg import drawn, on_white

# To be raised when pictures or the names of colours come out otherwise than before.
RECIPE = 2


@dataclass(frozen=True)
class Drawings:
    """The emoji of one style, in the order of their code points.

    Attributes:
        images: uint8 (N, 3, size, size), on white.
        entries: What each shows.
        colours: Names of each one's colours.
    """

    images: Tensor
    entries: list[Entry]
    colours: list[list[str]]


def drawn_styles(root: Path, styles: Sequence[str], size: int) -> dict[str, Path]:
    """Returns the files of the styles: all of them, or Google's alone.

    Raises:
        FileNotFoundError: If neither has been drawn.
    """
    files = {style: _file(root, style, size) for style in styles}
    missing = [path.name for path in files.values() if not path.is_file()]
    if not missing:
        return files
    alone = _file(root, "google", size, alone=True)
    if "google" in styles and alone.is_file():
        return {"google": alone}
    raise FileNotFoundError(
        f"data.root: {root}; expected {missing[0]} of Emoji there: get it with "
        "`download: true` where there is a network, or copy the folder emoji"
    )


def draw_styles(root: Path, styles: Sequence[str], size: int) -> str:
    """Draws the styles that are missing; returns why it is Google's alone, or "" if it is not.

    Raises:
        FileNotFoundError: If something could not be fetched or drawn.
    """
    missing = [style for style in styles if not _file(root, style, size).is_file()]
    try:
        if missing:
            _draw_packs(root, missing, size)
        return ""
    except FileNotFoundError as error:
        if "google" not in styles:
            raise
        reason = str(error)
    alone = _file(root, "google", size, alone=True)
    if not alone.is_file():
        try:
            table, pictures = scistag(obtain(SCISTAG, root / "packages"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{reason}; {error}") from None
        _bake(alone, pictures, table)
    return f"; {reason}"


def _draw_packs(root: Path, styles: Sequence[str], size: int) -> None:
    if find_spec("resvg_py") is None:
        raise FileNotFoundError(
            "resvg-py, which draws the SVG files, is not installed; "
            "pip install 'diffusion-template[emoji]'"
        )
    archives = {style: obtain(PACKS[style], root / "packages") for style in styles}
    table = emojibase(obtain(EMOJIBASE, root / "packages"))
    for style, archive in archives.items():
        pictures = black(archive) if style == LINES else pack(archive)
        _bake(_file(root, style, size), pictures, table)


def _file(root: Path, style: str, size: int, alone: bool = False) -> Path:
    """Returns the file of a style, whose name changes with what it is made from."""
    packages = [SCISTAG] if alone else [PACKS[style], EMOJIBASE]
    made_from = digest([RECIPE, style, size, [package.sha256 for package in packages]])
    return root / "emoji" / f"{style}-{size}-{made_from[:12]}.safetensors"


def _bake(path: Path, pictures: Mapping[str, str | bytes], table: Mapping[str, Entry]) -> None:
    """Draws every emoji that the table knows, and writes the file.

    Args:
        path: The file, as `_file` names it.
        pictures: SVG or PNG files, by code points.
        table: What they show, by code points.
    """
    from safetensors.torch import save_file

    style, size, _ = path.stem.split("-")
    check_writable(path.parent, "data.root")
    images, records = [], []
    codes = sorted(pictures.keys() & table.keys())
    with bar("emoji") as progress:
        for code in progress.track(codes, description=f"{style} emoji"):
            rgba = drawn(pictures[code])
            images.append(on_white(rgba, int(size)))
            records.append([asdict(table[code]), colours(rgba)])
    tensors = {"images": torch.from_numpy(np.stack(images))}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"records": json.dumps(records)})


def read_drawings(path: Path) -> Drawings:
    """Returns the content of the file that `_bake` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        images, records = file.get_tensor("images"), json.loads(file.metadata()["records"])
    entries = [Entry(**x | {key: tuple(x[key]) for key in ("tags", "tones")}) for x, _ in records]
    return Drawings(images, entries, [names for _, names in records])
