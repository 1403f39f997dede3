"""The data module of the emoji."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffusion.common.hashing import share_of
from diffusion.common.validate import check_choice, first_few
from diffusion.data.captioned_images import CaptionedImages, offering_prompts
from diffusion.data.captions.base import CaptionSource
from diffusion.data.captions.blend import Blend, blended, check_blend
from diffusion.data.controls.drawn import Drawn
from diffusion.data.emoji.captions import captions, of_style
from diffusion.data.emoji.drawings import draw_styles, drawn_styles, read_drawings
from diffusion.data.emoji.facts import STYLES, Facts, said_facts, true_facts
from diffusion.data.emoji.line_drawings import with_lines
from diffusion.data.emoji.packs import LINES
from diffusion.data.emoji.table import CLASSES
from diffusion.data.sets import UNREAD, ImageSet, Memory, Versions

HELD_OUT = 0.05
KINDS = ("short", "long")
LINED = "openmoji"  # the style that has line drawings


class Emoji(CaptionedImages):
    """1,644 emoji in four styles of drawing, with captions and 23 classes.

    A picture of a split is one concept in one style. Its skin tones are versions of it, shown in
    turn, so that people do not outweigh all else. The splits go by concept: 90 % train, 5 % val and
    5 % test, whose concepts are unseen; "pairs" are 5 % of the training concepts' (concept, style)
    pairs, held out from training, whose concepts train in other styles.

    The pictures are drawn once, from pinned packages of npm. Where they cannot be had, Google's
    style alone comes from a package of pip.

    The control `Drawn` is the line drawing of each picture, which openmoji alone has.

    Args:
        root: Folder of the packages and of the drawn pictures.
        size: Height and width, a multiple of 8 up to 128.
        styles: Whose drawings: google, twitter, microsoft, openmoji; None for all.
        captions: "short", "long", or "both" in turn; or a weight for each of several kinds, as
            {short: 0.05, synthetic: 0.95}, by which one is drawn at each visit, see `Blend`.
        sources: Kinds of captions besides "short" and "long", by the keys in `captions`.
        prompt: The kind that batches have too, as "prompt", for what makes captions of prompts.
        complete: Whether prompts that name no style, as all captions do, are made captions of the
            first one: "a strawberry" is "a google emoji of a strawberry".
        train_share: Share of the training pictures that are trained on, by concept and style. A
            smaller share is part of a larger one.
        download: Get what is missing.
        **kwargs: As for `CaptionedImages`.

    Attributes:
        pictures: All pictures, with skin tones, once they are read.
        names: What files call each of them, style and code points, "google-1f98a".
        truth: The facts of the picture that has a caption, by the caption.

    Raises:
        ValueError: If an argument is out of its range.
    """

    SPLITS: ClassVar = ("train", "val", "test", "pairs")
    has_beside = Drawn

    num_classes = len(CLASSES)
    classes = tuple(CLASSES)
    pairs_set: ImageSet = UNREAD

    def __init__(
        self,
        root: str = "data",
        size: int = 32,
        styles: list[Literal["google", "twitter", "microsoft", "openmoji"]] | None = None,
        captions: Literal["short", "long", "both"] | dict[str, float] = "short",
        sources: dict[str, CaptionSource] | None = None,
        prompt: str | None = None,
        complete: bool = True,
        train_share: float = 1.0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        self.shape = (3, size, size)
        super().__init__(**kwargs)
        check_choice("data", range(8, 136, 8), size=size)
        chosen = list(STYLES if styles is None else styles)
        if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*STYLES}:
            raise ValueError(f"data.styles: {styles}; expected some of {', '.join(STYLES)}")
        self.sources, self.prompt = sources or {}, prompt
        if prompt is not None:
            check_blend({prompt: 1.0}, [*KINDS, *self.sources], "prompt")
        if isinstance(captions, str):
            check_choice("data", (*KINDS, "both"), captions=captions)
        else:
            check_blend(captions, [*KINDS, *self.sources])
        if not 0 < train_share <= 1:
            raise ValueError(f"data.train_share: {train_share}; expected more than 0, at most 1")
        self.root, self.captions, self.download, self.reason = root, captions, download, ""
        self.train_share, self.complete = train_share, complete
        self.pictures: Memory = UNREAD
        self.names, self.truth = list[str](), dict[str, Facts]()
        self.styles = [style for style in STYLES if style in chosen]
        if self.beside and self.styles != [LINED]:
            raise ValueError(
                f"data.styles: {styles}; expected [{LINED}], as the others have no line drawings "
                f"for data.controls.{next(iter(self.beside))}"
            )

    def setup(self, stage: str) -> None:
        """See `CaptionedImages`; prompts that name no style are made captions, or warned of."""
        bare = [x for x in self.prompts or [] if x and not said_facts(x, frozenset())["style"]]
        if bare:
            known = (
                f"data.prompts: {first_few([*map(repr, bare)])} without a style, as no caption is"
            )
            whole = of_style(self.styles[0], bare[0])
            if self.complete:
                whole_of = {x: of_style(self.styles[0], x) for x in bare}
                self.prompts = [whole_of.get(x, x) for x in self.prompts or []]
                rank_zero_warn(f"{known}; asked for as {whole!r}, or so, by data.complete")
            else:
                rank_zero_warn(f"{known}; expected {', '.join(self.styles)} in each: {whole!r}")
        super().setup(stage)

    def prepare_data(self) -> None:
        """Draws what has not been drawn yet; prompts and labels need no data to be asked for.

        Raises:
            FileNotFoundError: If something could not be fetched or drawn.
        """
        sampling = self.trainer is not None and self.trainer.predicting
        if self.download and not (sampling and not self.needs_pictures):
            with offering_prompts(sampling):
                self.reason = draw_styles(self._root, self._drawn, self.shape[-1])

    def read_splits(self) -> Iterable[str]:
        """Reads the drawn pictures and splits them."""
        files = drawn_styles(self._root, self._drawn, self.shape[-1])
        lines, beside = files.pop(LINES, None), dict[str, Tensor]()
        if missing := [style for style in self.styles if style not in files]:
            self.mention(f"styles: only google, without {', '.join(missing)}{self.reason}")
        images, labels, concepts = [], [], []
        own: dict[str, list[tuple[str, ...]]] = {kind: [] for kind in (*KINDS, "both")}
        for style, path in files.items():
            drawings = read_drawings(path)
            if lines is not None:
                drawings, white = with_lines(drawings, read_drawings(lines), self.mention)
                beside = dict.fromkeys(self.beside, white)
            images.append(drawings.images)
            for entry, colours in zip(drawings.entries, drawings.colours):
                for kind, of_all in own.items():
                    of_all.append(captions(kind, style, entry, colours))
                facts = true_facts(style, entry, colours)
                self.truth |= dict.fromkeys(own["both"][-1], facts)
                self.names.append(f"{style}-{entry.code}")
                labels.append(entry.label)
                concepts.append((entry.base, style))
        groups = splits(concepts)
        texts, blend = self.captions, None
        if isinstance(texts, str):
            texts = own[texts]
        else:
            texts, blend = self._by_split(texts, own, groups)
        everything = Memory(torch.cat(images), torch.tensor(labels), texts, beside, blend)
        if self.prompt is not None:
            everything.prompts, _ = self._by_split({self.prompt: 1.0}, own, groups)
        self.pictures = everything
        groups["train"] = [
            group
            for group in groups["train"]
            if share_of("train " + " ".join(concepts[group[0]])) < self.train_share
        ]
        found = {name: Versions(everything, chosen) for name, chosen in groups.items()}
        self.train_set, self.val_set = found["train"], found["val"]
        self.test_set, self.pairs_set = found["test"], found["pairs"]
        return chain.from_iterable(texts)

    def _by_split(
        self,
        weights: dict[str, float],
        own: dict[str, list[tuple[str, ...]]],
        groups: dict[str, list[list[int]]],
    ) -> tuple[list[list[str]], Blend]:
        """Returns the captions of all pictures, and what picks among them.

        Sources see a split at a time, so that no caption crosses from one to another.
        """
        texts: list[list[str]] = [[] for _ in self.names]
        bounds: list[tuple[float, ...]] = [() for _ in self.names]
        for rows in map(list, map(chain.from_iterable, groups.values())):
            names = [self.names[i] for i in rows]
            here = {kind: [of_all[i] for i in rows] for kind, of_all in own.items()}
            found = blended(weights, here, self.sources, names, self.mention)
            for i, of_one, shares in zip(rows, *found):
                texts[i], bounds[i] = of_one, shares
        if bare := [name for name, of_one in zip(self.names, texts) if not of_one]:
            raise ValueError(
                f"data.captions: {weights}; expected a caption of each picture, {len(bare)} have "
                f"none: {first_few(bare)}"
            )
        return texts, Blend(bounds, self.seed)

    def sets(self) -> dict[str, ImageSet]:
        """Returns the splits, "pairs" among them."""
        return {**super().sets(), "pairs": self.pairs_set}

    @cached_property
    def _keywords(self) -> frozenset[str]:
        return frozenset().union(*(facts["keyword"] for facts in self.truth.values()))

    def said(self, text: str) -> Facts:
        """Returns what a text says of a picture, by the same kinds as `truth`."""
        return said_facts(text, self._keywords)

    @property
    def _drawn(self) -> list[str]:
        """What has to be drawn: the styles, and line drawings where there is a control of them."""
        return [*self.styles, *([LINES] if self.beside else [])]

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser()


def splits(pictures: Sequence[tuple[str, str]]) -> dict[str, list[list[int]]]:
    """Returns the numbers of pictures by split, in groups of one concept in one style.

    A concept is for validation or testing by its code points alone. A pair of a training concept
    and a style is held out by their names; one style of every concept stays.

    Args:
        pictures: The concept and the style of each.
    """
    concepts: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for number, (concept, style) in enumerate(pictures):
        concepts[concept].setdefault(style, []).append(number)
    found: dict[str, list[list[int]]] = {name: [] for name in Emoji.SPLITS}
    for concept, styles in concepts.items():
        share = share_of(concept)
        whole = "val" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"
        pair = {style: share_of(f"{concept} {style}") for style in styles}
        stays = max(pair, key=lambda style: pair[style])
        for style, group in styles.items():
            held_out = whole == "train" and pair[style] < HELD_OUT and style != stays
            found["pairs" if held_out else whole].append(group)
    return found
