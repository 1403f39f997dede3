"""The data module of the emoji."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn

from diffusion.data.image_set import ImageSet
from diffusion.data.low_resolution import LowResolution
from diffusion.data.memory import Memory
from diffusion.data.module import Images
from diffusion.data.prompts import Prompts
from diffusion.data.versions import Versions

from .cache import Drawings, read
from .captions import long, short
from .prepare import draw, drawn_styles
from .splits import splits
from .table import CLASSES

STYLES = ("google", "twitter", "microsoft", "openmoji")


class Emoji(Images):
    """1,644 emoji in four styles of drawing, with captions and 23 classes.

    A picture of a split is one concept in one style. Its skin tones are versions of it, shown in
    turn, so that people do not outweigh all else. The splits go by concept: 90 % train, 5 % val and
    5 % test, whose concepts are unseen; "pairs" are 5 % of the training concepts' (concept, style)
    pairs, held out from training, whose concepts train in other styles.

    The pictures are drawn once, from pinned packages of npm. Where they cannot be had, Google's
    style alone comes from a package of pip.

    Args:
        root: Folder of the packages and of the drawn pictures.
        size: Height and width, a multiple of 8 up to 128.
        styles: Whose drawings: google, twitter, microsoft, openmoji; None for all.
        captions: "short", "long", or "both" in turn.
        prompts: What `predict` asks for in turn, or None for captions of the split `ask`.
        ask: The split whose captions and classes `predict` asks for.
        download: Get what is missing.
        low_size: If not None, batches also have "low_res", as `LowResolution` says; with neither
            `low_root` nor prompts, samples get that of the picture whose caption they have.
        low_root: A folder of small pictures to draw samples from.
        **kwargs: As for `Images`.

    Attributes:
        texts: After `setup`, all captions and prompts, sorted.

    Raises:
        ValueError: An argument is out of its range.
    """

    SPLITS: ClassVar = ("train", "val", "test", "pairs")

    num_classes = len(CLASSES)
    classes: ClassVar = CLASSES
    pairs_set: ImageSet
    texts: list[str]

    def __init__(
        self,
        root: str = "data",
        size: int = 32,
        styles: list[Literal["google", "twitter", "microsoft", "openmoji"]] | None = None,
        captions: Literal["short", "long", "both"] = "short",
        prompts: list[str] | None = None,
        ask: Literal["train", "val", "test", "pairs"] = "val",
        download: bool = True,
        low_size: int | None = None,
        low_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if size % 8 or not 8 <= size <= 128:
            raise ValueError(f"size: {size}, expected a multiple of 8 up to 128")
        chosen = list(STYLES if styles is None else styles)
        if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*STYLES}:
            raise ValueError(f"styles: {styles}, expected some of {', '.join(STYLES)}")
        if captions not in ("short", "long", "both"):
            raise ValueError(f"captions: {captions!r}, expected short, long or both")
        self.root = root
        self.shape = (3, size, size)
        self.styles = [style for style in STYLES if style in chosen]
        self.captions = captions
        self.prompts = Prompts(prompts, ask, self.SPLITS)
        self.download = download
        self.low = None if low_size is None else LowResolution(low_size, low_root, self.shape)

    def prepare_data(self) -> None:
        """Draw what has not been drawn yet; prompts need no data to be asked for.

        Raises:
            FileNotFoundError: A package could not be fetched.
            ModuleNotFoundError: What draws SVG is not installed.
        """
        if not (self._needs_no_data and self._predicting) and self.download:
            draw(Path(self.root).expanduser(), self.styles, self.shape[-1])

    def setup(self, stage: str) -> None:
        """Read the drawn pictures and split them.

        Raises:
            FileNotFoundError: They are not there.
        """
        if self.low is not None:
            self.low.check()
        if self.is_set_up:
            return
        prompts = self.prompts.prompts or []
        if stage == "predict" and self._needs_no_data:
            self.texts = sorted(set(prompts))
            return
        found = drawn_styles(Path(self.root).expanduser(), self.styles, self.shape[-1])
        if missing := [style for style in self.styles if style not in found]:
            rank_zero_warn(f"styles: {', '.join(missing)} left out, only google is there")
        drawings = {style: read(path) for style, path in found.items()}
        entries = [entry for one in drawings.values() for entry in one.entries]
        texts = [texts for style, one in drawings.items() for texts in self._captions(style, one)]
        images = torch.cat([one.images for one in drawings.values()])
        everything = Memory(images, torch.tensor([entry.label for entry in entries]), texts)
        bases = {style: [entry.base for entry in one.entries] for style, one in drawings.items()}
        for split, groups in splits(bases).items():
            setattr(self, f"{split}_set", Versions(everything, groups))
        self.texts = sorted({text for captions in texts for text in captions} | set(prompts))

    def request(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Say what samples are to be, as `Prompts` does.

        Args:
            numbers: The numbers of B samples.

        Returns:
            "index" and "text"; "label" too without prompts.
        """
        pictures = None if self._needs_no_data else self._split(self.prompts.ask)
        batch = self.prompts.request(numbers, pictures, self.labels)
        if pictures is not None and self.low is not None and self.low.root is None:
            rows = self.prompts.rows(numbers, pictures, self.labels)
            images = self.normalize(pictures.__getitems__(rows)["image"])
            batch["low_res"] = self.low.shrunk(images)
        return batch

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Normalise the pictures, and add small ones if they are wanted."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if self.low is None else self.low.added(batch, self.normalize)

    @property
    def _needs_no_data(self) -> bool:
        return self.prompts.prompts is not None

    @property
    def _predicting(self) -> bool:
        return self.trainer is not None and self.trainer.predicting

    def _captions(self, style: str, drawings: Drawings) -> list[tuple[str, ...]]:
        captions = []
        for entry, colours in zip(drawings.entries, drawings.colours):
            of_kind = {"short": short(style, entry), "long": long(style, entry, colours)}
            captions.append(
                tuple(of_kind.values()) if self.captions == "both" else (of_kind[self.captions],)
            )
        return captions
