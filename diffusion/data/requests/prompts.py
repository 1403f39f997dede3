"""Data whose samples are asked for in words."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion.common.files import decoded
from diffusion.data.base import Images
from diffusion.data.requests.small_pictures import LowResolution
from diffusion.data.sets import ImageSet

LARGEST = 2**26  # bytes of a file with prompts: about a million


class Prompted(Images):
    """Data with captions: samples have prompts in turn, or the captions of a split.

    Sample i has the prompt i mod len(prompts). Without prompts it has caption and label of picture
    order[i mod N], in a fixed random order of the split `ask`; with `labels` it has the class
    labels[i mod n], and of its N_c pictures number order[i // n mod N_c].

    Attributes:
        prompts: What to ask for, or None.
        ask: The split whose captions are asked for when there are no prompts.
        low: What adds small pictures to the batches, or None.
        texts: After `setup`, all captions and prompts, sorted.
    """

    prompts: list[str] | None
    ask: str
    low: LowResolution | None
    texts: list[str]

    def _asks(
        self, prompts: list[str] | None, ask: str, low_size: int | None, low_root: str | None
    ) -> None:
        """Take what the arguments of these names say, once `shape` is known.

        Raises:
            ValueError: There is no prompt in the list, no such split, or the sizes do not divide.
        """
        if prompts is not None and not prompts:
            raise ValueError("prompts: [], expected null or at least one")
        if ask not in self.SPLITS:
            raise ValueError(f"ask: {ask!r}, expected one of {', '.join(self.SPLITS)}")
        self.prompts = prompts and [plain_text(text) for text in prompts]
        self.ask = ask
        self.low = None if low_size is None else LowResolution(low_size, low_root, self.shape)

    @property
    def needs_pictures(self) -> bool:
        """Whether samples are asked for by pictures: by their captions, or small versions of them.

        They are not where there are prompts, or where the model reads labels alone.
        """
        module = getattr(self.trainer, "lightning_module", None)
        reads_texts = getattr(module, "reads_texts", True)
        shrinks = self.low is not None and self.low.root is None
        return self.prompts is None and (reads_texts or shrinks)

    def _is_read(self, stage: str) -> bool:
        """Whether `setup` is done: it was before, or samples are drawn, which need no pictures.

        Raises:
            FileNotFoundError: There is no folder of small pictures.
        """
        if self.low is not None:
            self.low.check()
        if self.is_set_up:
            return True
        self.texts = sorted(set(self.prompts or []))
        return stage == "predict" and not self.needs_pictures

    def request(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Say what samples are to be.

        Args:
            numbers: The numbers of B samples.

        Returns:
            "index": int64 (B,), "text": list of B strings, and, without prompts, what else is known
            of the pictures that have these captions, such as "label" and "low_res".
        """
        batch: dict[str, Any] = {"index": torch.tensor(numbers)}
        if self.prompts is not None:
            return {**batch, "text": [self.prompts[i % len(self.prompts)] for i in numbers]}
        if not self.needs_pictures and not self.is_set_up:
            return super().request(numbers)
        pictures = self._split(self.ask)
        rows = self._rows(numbers, pictures)
        batch.update(pictures.conditions(rows))
        if self.low is not None:
            batch.update(self.low.known(pictures, rows, self.normalize))
        return batch

    @property
    def frequencies(self) -> None:
        """None: captions of a split come with their classes, as often as they are there."""

    def asked(self) -> dict[str, Any]:
        """See `Images`."""
        asked = {**super().asked(), "prompts": self.prompts}
        if self.prompts is None:
            asked["ask"] = self.ask
        if self.low is None:
            return asked
        if self.prompts is None and self.low.root is None:
            return {**asked, "low_size": self.low.size, "pictures": self.fingerprint(self.ask)}
        return {**asked, **self.low.asked()}

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Normalise the pictures, and add small ones if they are wanted."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if self.low is None else self.low.added(batch, self.normalize)

    def _rows(self, numbers: Sequence[int], pictures: ImageSet) -> list[int]:
        """Which pictures the samples are asked for by.

        Raises:
            ValueError: The split is empty, or has no picture of a class.
        """
        order = np.random.RandomState(0).permutation(len(pictures))
        if len(order) == 0:
            raise ValueError(f"ask: {self.ask!r} has no pictures, expected another split")
        if self.labels is None or (labels := self.asked_classes()) is None:
            return [int(order[i % len(order)]) for i in numbers]
        classes = pictures.conditions(order.tolist())["label"].numpy()
        of_class = {label: order[classes == label] for label in labels}
        if empty := [label for label, rows in of_class.items() if len(rows) == 0]:
            raise ValueError(
                f"labels: {empty[0]} has no picture in split {self.ask!r}, expected another class "
                "or another split in `ask`"
            )
        turns = ((of_class[labels[i % len(labels)]], i // len(labels)) for i in numbers)
        return [int(rows[turn % len(rows)]) for rows, turn in turns]


@contextmanager
def needed(stage: str) -> Iterator[None]:
    """Say that prompts would do, where samples are to be drawn and the pictures are not there.

    Raises:
        FileNotFoundError: They are not.
    """
    try:
        yield
    except FileNotFoundError as error:
        if stage != "predict":
            raise
        raise FileNotFoundError(
            "data.prompts: null; expected a text to draw, such as --prompt 'a red fox', or "
            f"pictures with captions to draw anew: {error}"
        ) from None


def plain_text(text: str) -> str:
    """Returns a text in one line of composed letters (NFC), without a byte order mark."""
    return " ".join(unicodedata.normalize("NFC", text.replace("\ufeff", "")).split())


def prompts_of(prompt: list[str] | str | None, files: list[str] | str | None) -> list[str] | None:
    """Returns the texts to draw, or None if none was given.

    Args:
        prompt: A text, or several.
        files: A file with a text on each line, or several; empty lines are left out.

    Raises:
        ValueError: If there are both, a file holds no text, or is in another encoding than UTF-8
            or UTF-16 with its mark.
        FileNotFoundError: If a file is missing.
    """
    if prompt is not None and files is not None:
        raise ValueError("prompt: it was given beside prompts; expected one of the two")
    if files is None:
        return [prompt] if isinstance(prompt, str) else prompt
    return [text for file in ([files] if isinstance(files, str) else files) for text in lines(file)]


def lines(file: str) -> list[str]:
    """Returns the lines of a file that are not empty; errors as for `prompts_of`."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"prompts: {file}; expected a file of texts, there is none")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"prompts: {file} has {size:,} bytes; expected at most {LARGEST:,}")
    found = [line.strip() for line in decoded(path, "prompts").splitlines()]
    if not any(found):
        raise ValueError(f"prompts: {file}; expected a text on each line, it is empty")
    return [line for line in found if line]
