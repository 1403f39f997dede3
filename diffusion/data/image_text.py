"""Any folder of pictures with captions."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusion.common.validate import first_few
from diffusion.data.captioned_images import CaptionedImages
from diffusion.data.image_folder import ImageFolder
from diffusion.data.reading.image_files import Files
from diffusion.data.requests.prompts import plain_text

KEYS = ("caption", "text")
LARGEST = 2**20  # bytes of a file with a caption


class ImageText(CaptionedImages, ImageFolder):
    """An `ImageFolder` with captions in .txt or .json files beside the pictures.

    `cats/1.jpg` has its caption in `cats/1.txt`, or in `cats/1.json` under "caption" or "text".
    Pictures without a caption are left out and counted.

    Without `ask`, samples have captions of "val", or of "train" if `val_share` is 0.

    Args:
        **kwargs: As for `CaptionedImages` and `ImageFolder`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.captions: dict[str, str] = {}

    @property
    def default_ask(self) -> str:
        """See `CaptionedImages`."""
        return "val" if self.val_share else "train"

    def read_splits(self) -> Iterable[str]:
        """Lists and splits the pictures that have captions."""
        ImageFolder.setup(self, "fit")
        return self.captions.values()

    def names(self, root: Path, names: list[str]) -> list[str]:
        """Returns the paths of the pictures that have captions.

        Raises:
            FileNotFoundError: If there is none.
        """
        read = {name: caption(root / name) for name in names}
        self.captions = {name: text for name, text in read.items() if text}
        if not self.captions:
            raise FileNotFoundError(
                f"data.root: {self.root}; expected captions of its {len(names)} pictures, such as "
                f"{Path(names[0]).stem}.txt or .json beside {names[0]}"
            )
        if left_out := [name for name in names if name not in self.captions]:
            self.mention(
                f"left out: {len(left_out)} of {len(names)} pictures in {self.root!r} have no "
                f"caption: {first_few(left_out, 10)}"
            )
        return list(self.captions)

    def _files(self, root: Path, names: list[str]) -> Files:
        files = super()._files(root, names)
        files.texts = [[self.captions[name]] for name in names]
        return files


def caption(picture: Path) -> str:
    """Returns the caption of a picture, as `plain_text` gives it, "" if there is none.

    Raises:
        ValueError: If the file cannot be read, or is too large.
    """
    suffix = next((x for x in (".txt", ".json") if picture.with_suffix(x).is_file()), None)
    if suffix is None:
        return ""
    path = picture.with_suffix(suffix)
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{size:,} bytes, more than {LARGEST:,}")
        found = path.read_text(encoding="utf-8-sig")
        if suffix == ".json":
            values = json.loads(found)
            found = next((values[key] for key in KEYS if key in values), "")
        if not isinstance(found, str):
            raise TypeError(f"a {type(found).__name__}")
        return plain_text(found)
    except (ValueError, TypeError, RecursionError) as error:
        expected = f"UTF-8 text, or JSON with a string under {' or '.join(KEYS)}"
        raise ValueError(
            f"data.root: {picture} has an unreadable caption ({error}); expected {expected}"
        ) from None
