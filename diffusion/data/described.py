# pyright: strict
"""What data is: its shape, its classes, its levels, and what tells it from other data."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffusion.common.hashing import bytes_digest
from diffusion.common.pixels import scaled
from diffusion.data.batches import Batches
from diffusion.data.requests.small_pictures import SmallPictures
from diffusion.spec import DataSpec


class Described(Batches, ABC):
    """Data with the values v = 0 .. levels − 1, trained on as x = 2 v / (levels − 1) − 1.

    Args:
        **kwargs: As for `Batches`.

    Attributes:
        shape: (C, H, W), or (D,) for points.
        num_classes: Number of classes, None without labels.
        classes: Their names, if they have some; a label is a place among them.
        levels: Number of grey levels, None for continuous data.
        ask: The split whose captions are asked for; None where the data has none.
        prompt: The kind of short captions that batches have as "prompt"; None for none.
        texts: All captions and prompts, once the data is set up; None where it has none.
        low: What batches have as small pictures, "low_res", or None.
        mentioned: What was left out of the data, a line each.
    """

    shape: tuple[int, ...]
    num_classes: int | None = None
    classes: Sequence[str] = ()
    levels: int | None = 256
    ask: str | None = None
    prompt: str | None = None
    texts: list[str] | None = None
    low: SmallPictures | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mentioned: list[str] = []
        self._counts: dict[str, list[int]] = {}

    def mention(self, text: str) -> None:
        """Warns of what is left out of the data, now and in the summary before training."""
        self.mentioned.append(text)
        rank_zero_warn(text)

    @property
    def asked_split(self) -> str:
        """The split of which samples have the captions, or show the persons."""
        return self.ask or "val"

    @property
    def spec(self) -> DataSpec:
        """What the data is, as checkpoints keep it; right once `is_known`."""
        captioned = self.ask is not None or self.texts is not None
        kinds = (tuple(self.shape), self.num_classes, tuple(self.classes), self.levels)
        return DataSpec(type(self).__name__, *kinds, captioned)

    @property
    def grid(self) -> int:
        """How many pixels of a picture's side are one of the small picture's; 1 without these.

        Crops begin at multiples of it, so that their small pictures are crops of the small picture.
        """
        return 1 if self.low is None else self.shape[-1] // self.low.size

    @property
    def specs(self) -> list[DataSpec]:
        """What a network sees: `spec`, and that of the crops which training reads, if it does.

        Raises:
            ValueError: If a crop is no part of a picture, or of its small version.
        """
        if self.crop is None:
            return [self.spec]
        channels, *sides = self.shape
        if self.crop > min(sides, default=0):
            raise ValueError(
                f"data.crop: {self.crop}; expected at most {min(sides, default=0)}, the side of "
                "the pictures"
            )
        if self.crop % self.grid:
            raise ValueError(
                f"data.crop: {self.crop}; expected a multiple of {self.grid}, the side of the "
                "square that is one pixel of the small picture"
            )
        return [self.spec, replace(self.spec, shape=(channels, self.crop, self.crop))]

    @property
    def is_known(self) -> bool:
        """Whether `spec` needs nothing to be read or restored any more."""
        return True

    def restore(self, spec: DataSpec) -> None:
        """Takes the classes from a checkpoint, which samples are asked for by."""
        self.num_classes, self.classes = spec.num_classes, spec.classes

    def remedy(self, spec: DataSpec) -> str:
        """Returns which argument would make this the data that a checkpoint was trained on."""
        return ""

    def class_counts(self, split: str) -> list[int] | None:
        """Returns the number of pictures of each class of a split; None without classes."""
        pictures = self.split(split)
        if self.num_classes is None:
            return None
        if split not in self._counts:
            known = pictures.conditions(range(len(pictures)))
            batches = [known] if "label" in known else self.batches(split)
            labels = torch.cat([batch["label"] for batch in batches])
            self._counts[split] = [int(n) for n in labels.bincount(minlength=self.num_classes)]
        return self._counts[split]

    def fingerprint(self, split: str) -> str:
        """Returns 16 hexadecimal digits that change when a picture of a split does."""
        pictures = self.split(split)
        settings = f"{type(self).__name__} {self.shape} {self.levels} {len(pictures)} "
        return bytes_digest(settings.encode(), pictures.digest())

    def normalize(self, images: Tensor) -> Tensor:
        """Returns bytes 0 .. levels − 1 as x, float32 in [−1, 1], the ends exact; points as is."""
        if self.levels is None or images.dtype != torch.uint8:
            return images
        return scaled(images, self.levels)
