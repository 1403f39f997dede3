"""Any folder of pictures with captions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from .files import Files
from .image_folder import ImageFolder
from .low_resolution import LowResolution
from .picture import picture_names
from .prompts import Prompts

KEYS = ("caption", "text")


class ImageText(ImageFolder):
    """An `ImageFolder` with captions in .txt or .json files beside the pictures.

    `cats/1.jpg` has its caption in `cats/1.txt`, or in `cats/1.json` under "caption" or "text".
    Pictures without a caption are left out and counted.

    Args:
        prompts: What `predict` asks for in turn, or None for captions of the split `ask`.
        ask: The split whose captions `predict` asks for.
        low_size: If not None, batches also have "low_res", as `LowResolution` says.
        low_root: A folder of small pictures to draw samples from.
        **kwargs: As for `ImageFolder`.

    Attributes:
        texts: After `setup`, all captions and prompts, sorted.

    Raises:
        ValueError: An argument is out of its range.
    """

    texts: list[str]

    def __init__(
        self,
        prompts: list[str] | None = None,
        ask: Literal["train", "val", "test"] = "val",
        low_size: int | None = None,
        low_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompts, self.ask = prompts, ask
        self.asked = Prompts(prompts, ask, self.SPLITS)
        self.low = None if low_size is None else LowResolution(low_size, low_root, self.shape)
        self.captions: dict[str, str] = {}

    def setup(self, stage: str) -> None:
        """Read the captions, then list and split the pictures; prompts need neither.

        Raises:
            FileNotFoundError: The folder is missing or no picture in it has a caption.
            ValueError: A caption cannot be read, or as for `ImageFolder`.
        """
        if self.low is not None:
            self.low.check()
        if self.is_set_up:
            return
        self.texts = sorted(set(self.prompts or []))
        if stage == "predict" and self.prompts:
            return
        super().setup(stage)
        self.texts = sorted({*self.texts, *self.captions.values()})

    def names(self, root: Path) -> list[str]:
        """Paths of the pictures that have captions.

        Raises:
            FileNotFoundError: There is none.
        """
        names = picture_names(root)
        read = {name: caption(root / name) for name in names}
        self.captions = {name: text for name, text in read.items() if text}
        if not self.captions:
            raise FileNotFoundError(
                f"root: {self.root!r} holds no caption for its {len(names)} pictures, expected "
                f"{Path(names[0]).stem}.txt or .json beside {names[0]}"
            )
        if left_out := [name for name in names if name not in self.captions]:
            rank_zero_warn(
                f"left out: {len(left_out)} of {len(names)} pictures in {self.root!r} have no "
                f"caption: {', '.join(left_out[:10])}{', …' if len(left_out) > 10 else ''}"
            )
        return list(self.captions)

    def request(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Say what samples are to be, as `Prompts` does.

        Args:
            numbers: The numbers of B samples.

        Returns:
            "index" and "text"; without prompts "label" too, if there are classes.
        """
        pictures = None if self.prompts else self._split(self.asked.ask)
        batch = self.asked.request(numbers, pictures, self.labels)
        if pictures is not None and self.low is not None:
            rows = self.asked.rows(numbers, pictures, self.labels)
            batch.update(self.low.known(pictures, rows, self.normalize))
        return batch

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Normalise the pictures, and add small ones if they are wanted."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if self.low is None else self.low.added(batch, self.normalize)

    def _files(self, root: Path, names: list[str]) -> Files:
        files = super()._files(root, names)
        files.texts = [self.captions[name] for name in names]
        return files


def caption(picture: Path) -> str:
    """Read the caption of a picture, in one line.

    Returns:
        The caption, "" if there is none.

    Raises:
        ValueError: The file cannot be read.
    """
    text, data = picture.with_suffix(".txt"), picture.with_suffix(".json")
    try:
        if text.is_file():
            return " ".join(text.read_text(encoding="utf-8").split())
        if not data.is_file():
            return ""
        values = json.loads(data.read_text(encoding="utf-8"))
        found = next((values[key] for key in KEYS if key in values), "")
        return " ".join(found.split())
    except (ValueError, TypeError, AttributeError) as error:
        expected = f"UTF-8 text, or JSON with a string under {' or '.join(KEYS)}"
        raise ValueError(
            f"{picture}: its caption is unreadable ({error}), expected {expected}"
        ) from None
