"""Texts to ask for: prompts in turn, or the captions of pictures."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion.common.files import decoded
from diffusion.common.hashing import digest
from diffusion.data.requests.base import Ask
from diffusion.data.sets import ImageSet
from diffusion.spec import Batch

LARGEST = 2**26  # bytes of a file with prompts: about a million


@dataclass
class Prompts(Ask):
    """Sample i has the text texts[i mod n]: "text", a list of B strings."""

    argument, keys = "prompts", ("text",)

    texts: Sequence[str]

    def ask(self, numbers: Sequence[int]) -> dict[str, list[str]]:
        """Returns the texts."""
        return {"text": [self.texts[i % len(self.texts)] for i in numbers]}

    def digest(self) -> str:
        """Returns the text, or the number of texts and 16 digits that change with them."""
        if len(self.texts) == 1:
            return self.texts[0]
        return f"{len(self.texts)} texts {digest(list(self.texts))}"


@dataclass
class Captions(Ask):
    """Samples have the captions of pictures, and their labels if there are any.

    Sample i has those of picture order[i mod N], in a fixed random order; with labels it has the
    class labels[i mod n], and of its N_c pictures those of number order[i // n mod N_c].

    Args:
        pictures: The N pictures.
        split: What errors call them.
        labels: The classes to ask for in turn, or None for all pictures.
    """

    argument, keys = "ask", ("text", "label")

    pictures: ImageSet
    split: str
    labels: Sequence[int] | None

    def ask(self, numbers: Sequence[int]) -> Batch:
        """Returns what is known of the pictures."""
        return self.pictures.conditions(self.rows(numbers))

    def digest(self) -> str:
        """Returns the name of the split, and the classes."""
        labels = "" if self.labels is None else f", labels {', '.join(map(str, self.labels))}"
        return f"{self.split}{labels}"

    def rows(self, numbers: Sequence[int]) -> list[int]:
        """Returns which pictures the samples have the captions of.

        Raises:
            ValueError: If the split is empty, or has no picture of a class.
        """
        if (labels := self.labels) is None:
            order = self._order()
            return [int(order[i % len(order)]) for i in numbers]
        n = len(labels)
        return self.rows_of([labels[i % n] for i in numbers], [i // n for i in numbers])

    def rows_of(self, labels: Sequence[int], turns: Sequence[int]) -> list[int]:
        """Returns picture number turns[i] mod N_c of class c = labels[i], for each i.

        Raises:
            ValueError: If the split is empty, or has no picture of a class.
        """
        order = self._order()
        classes = self.pictures.conditions(order.tolist())["label"].numpy()
        of_class = {label: order[classes == label] for label in {*labels}}
        if empty := sorted(label for label, rows in of_class.items() if len(rows) == 0):
            raise ValueError(
                f"data.labels: {empty[0]}; expected another class, or another split in data.ask, "
                f"as {self.split} has no picture of it"
            )
        rows = ((of_class[label], turn) for label, turn in zip(labels, turns))
        return [int(of_one[turn % len(of_one)]) for of_one, turn in rows]

    def _order(self) -> np.ndarray:
        order = np.random.RandomState(0).permutation(len(self.pictures))
        if len(order) == 0:
            raise ValueError(f"data.ask: {self.split}; expected another split, it has no pictures")
        return order


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
    return [text for file in ([files] if isinstance(files, str) else files) for text in _read(file)]


def _read(file: str) -> list[str]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"prompts: {file}; expected a file of texts, there is none")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"prompts: {file} has {size:,} bytes; expected at most {LARGEST:,}")
    found = [line.strip() for line in decoded(path, "prompts").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"prompts: {file}; expected a text on each line, it is empty")
    return found
