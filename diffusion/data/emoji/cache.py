"""Pictures of one style at one size, in one file.

Its name has a hash of the archives and of `RECIPE`, so a file that was made otherwise is not read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.common.files import check_writable, written_aside
from diffusion.common.hashing import digest
from diffusion.common.packages import Package
from diffusion.common.progress import bar
from diffusion.data.emoji.colours import colours
from diffusion.data.emoji.packs import drawn, on_white
from diffusion.data.emoji.table import Entry

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


def cache_path(root: Path, style: str, size: int, packages: list[Package]) -> Path:
    """Returns the file of the drawings of a style that are made from these packages."""
    made_from = digest([RECIPE, style, size, [package.sha256 for package in packages]])
    return root / "emoji" / f"{style}-{size}-{made_from[:12]}.safetensors"


def bake(
    path: Path,
    style: str,
    size: int,
    pictures: Mapping[str, str | bytes],
    table: Mapping[str, Entry],
) -> None:
    """Draws every emoji that the table knows, and writes the file.

    Args:
        path: The file.
        style: Whose drawings they are.
        size: Height and width.
        pictures: SVG or PNG files, by code points.
        table: What they show, by code points.
    """
    from safetensors.torch import save_file

    check_writable(path.parent, "data.root")
    images, records = [], []
    codes = sorted(pictures.keys() & table.keys())
    with bar("emoji") as progress:
        for code in progress.track(codes, description=f"{style} emoji"):
            rgba = drawn(pictures[code])
            images.append(on_white(rgba, size))
            records.append([asdict(table[code]), colours(rgba)])
    tensors = {"images": torch.from_numpy(np.stack(images))}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"records": json.dumps(records)})


def read_drawings(path: Path) -> Drawings:
    """Returns the content of the file that `bake` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        images, records = file.get_tensor("images"), json.loads(file.metadata()["records"])
    entries = [
        Entry(**{**x, "tags": tuple(x["tags"]), "tones": tuple(x["tones"])}) for x, _ in records
    ]
    return Drawings(images, entries, [names for _, names in records])
