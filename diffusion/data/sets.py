"""What a split is: pictures that are read a whole batch at a time."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion.data.captions.blend import Blend
from diffusion.spec import Batch


class ImageSet(Dataset[Batch], ABC):
    """Numbered pictures, with a class and a caption each or without."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of pictures."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns pictures as one batch.

        It has "image": uint8 (B, C, H, W), or float32 (B, D) for points; "label": int64 (B,), and
        "text": list of B captions, if there are any; and NAME: uint8 (B, c, H, W) of each control
        that comes beside the pictures.

        Args:
            indices: B numbers in 0 .. len − 1.
        """

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> Batch:
        """Returns pictures as training reads them; what has several versions shows them in turn.

        Args:
            indices: As for `__getitems__`, which is what all see at visit 0.
            visits: For each, how often it was read before: its epoch.
        """
        return self.__getitems__(indices)

    def each(self) -> "ImageSet":
        """Returns every picture by itself: of what has several versions, all of them."""
        return self

    def conditions(self, indices: Sequence[int]) -> Batch:
        """Returns what `__getitems__` does besides the pictures, which need not be read."""
        return {}

    @abstractmethod
    def digest(self) -> bytes:
        """Returns a hash that changes whenever a picture or a caption does."""


class Annotated(ImageSet):
    """Pictures with labels and captions in memory.

    A picture may have several captions: at its visit v, picture i shows number i + v of them, or
    the one that a blend picks.

    Attributes:
        labels: int64 (N,), or None.
        texts: The captions of each picture, at least one each, or None.
        blend: What picks among them; None for all in turn.
        prompts: Short texts of each picture that captions are to be made of, in turn, or None.
    """

    labels: Tensor | None
    texts: Sequence[Sequence[str]] | None
    blend: Blend | None
    prompts: Sequence[Sequence[str]] | None

    def conditions(self, indices: Sequence[int]) -> Batch:
        """Returns labels and first captions."""
        return self.labels_and_texts(indices, [0] * len(indices))

    def labels_and_texts(self, indices: Sequence[int], visits: Sequence[int]) -> Batch:
        """Returns labels, and the captions whose turn it is."""
        known: dict[str, Any] = {}
        if self.labels is not None:
            known["label"] = self.labels[torch.as_tensor(indices)]
        if self.texts is not None:
            shown = zip(indices, visits)
            if self.blend is None:
                known["text"] = [self.texts[i][(i + v) % len(self.texts[i])] for i, v in shown]
            else:
                known["text"] = [self.texts[i][self.blend.pick(i, v)] for i, v in shown]
        if self.prompts is not None:
            turns = ((self.prompts[i], i + v) for i, v in zip(indices, visits))
            known["prompt"] = [prompts[turn % len(prompts)] for prompts, turn in turns]
        return known

    def annotations(self) -> bytes:
        """Returns labels and captions, for a digest."""
        labels = None if self.labels is None else self.labels.tolist()
        texts = None if self.texts is None else [list(texts) for texts in self.texts]
        prompts = None if self.prompts is None else [list(texts) for texts in self.prompts]
        blend = None if self.blend is None else [self.blend.seed, *self.blend.bounds]
        known = (labels, texts, blend, prompts)
        return "".join(json.dumps(x) for x in known if x is not None).encode()


@dataclass(eq=False)
class Memory(Annotated):
    """Pictures in one tensor, gathered a batch at a time.

    Args:
        images: uint8 (N, C, H, W), or float32 (N, D) for points.
        labels: int64 (N,), or None.
        texts: The captions of each picture, or None.
        beside: Controls, uint8 (N, c, H, W), by name.
        blend: What picks among the captions of a picture.
        prompts: Short texts of each picture, or None.

    Raises:
        ValueError: If there are not as many labels or captions as images.
    """

    images: Tensor
    labels: Tensor | None = None
    texts: Sequence[Sequence[str]] | None = None
    beside: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    blend: Blend | None = None
    prompts: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        for key, values in (("labels", self.labels), ("texts", self.texts), *self.beside.items()):
            if values is not None and len(values) != len(self.images):
                n = len(self.images)
                raise ValueError(f"{key}: {len(values)}; expected {n}, one per image")
        self.images = self.images.contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.visit(indices, [0] * len(indices))

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> Batch:
        """Returns pictures, each with the caption whose turn it is."""
        rows = torch.as_tensor(indices)
        pictures = {"image": self.images, **self.beside}
        shown = {name: x[rows] for name, x in pictures.items()}
        return {**shown, **self.labels_and_texts(indices, visits)}

    def digest(self) -> bytes:
        """Returns SHA-256 of the images' bytes, labels, captions and controls."""
        digest = hashlib.sha256(self.images.numpy().data)
        for name, control in self.beside.items():
            digest.update(name.encode() + control.contiguous().numpy().tobytes())
        digest.update(self.annotations())
        return digest.digest()


@dataclass(eq=False)
class Versions(ImageSet):
    """Groups of the pictures of a set, each as one picture that has versions.

    At its visit v, group k of n_k pictures shows number (k + v) mod n_k of them. So all groups
    weigh the same, however many pictures they have, and in n_k epochs each is shown once. The
    number of full turns, v // n_k, is the picture's own visit.

    Args:
        pictures: The set.
        groups: For each group, the numbers of its pictures.
    """

    pictures: ImageSet
    groups: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.visit(indices, [0] * len(indices))

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> Batch:
        """Returns the versions whose turn it is."""
        turns = [v // len(self.groups[k]) for k, v in zip(indices, visits)]
        return self.pictures.visit(self._shown(indices, visits), turns)

    def conditions(self, indices: Sequence[int]) -> Batch:
        """Returns what is known of the versions that the first visit shows."""
        return self.pictures.conditions(self._shown(indices, [0] * len(indices)))

    def each(self) -> "Versions":
        """Returns all versions of all groups, each a group of its own."""
        return Versions(self.pictures, [[i] for group in self.groups for i in group])

    def digest(self) -> bytes:
        """Returns a hash of the pictures' digest and of the groups."""
        groups = json.dumps([list(group) for group in self.groups])
        return hashlib.sha256(self.pictures.digest() + groups.encode()).digest()

    def _shown(self, indices: Sequence[int], visits: Sequence[int]) -> list[int]:
        groups = (self.groups[k] for k in indices)
        return [group[(k + v) % len(group)] for group, k, v in zip(groups, indices, visits)]


@dataclass
class OrEmpty(Dataset[Batch]):
    """A set that returns {} for a batch without pictures, which a process with none left reads."""

    pictures: ImageSet

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.pictures.__getitems__(indices) if indices else {}


UNREAD = Memory(torch.empty(0))  # in place of a split that has not been read
