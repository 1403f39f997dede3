"""Any folder of pictures with captions."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from diffusion.common.validate import first_few
from diffusion.data.captioned_images import CaptionedImages
from diffusion.data.captions.base import CaptionSource
from diffusion.data.captions.blend import Blend, blended, check_blend
from diffusion.data.image_folder import ImageFolder
from diffusion.data.reading.image_files import Files
from diffusion.data.requests.prompts import plain_text

KEYS = ("caption", "text")
LARGEST = 2**20  # bytes of a file with a caption


class ImageText(CaptionedImages, ImageFolder):
    """An `ImageFolder` with captions in .txt or .json files beside the pictures.

    `cats/1.jpg` has its caption in `cats/1.txt`, or in `cats/1.json` under "caption" or "text"; of
    several in a list, each visit shows the next. Pictures without a caption are left out and
    counted.

    With weights of several kinds of captions, one is drawn at each visit, see `Blend`. A kind is a
    key of the .json files, or of `sources`; "caption" is what is in the .txt file, if there is one.

    Without `ask`, samples have captions of "val", or of "train" if `val_share` is 0.

    Args:
        captions: The weights, such as {caption: 0.05, synthetic: 0.95}; None for "caption" alone.
        sources: Captions from elsewhere, by the keys in `captions`.
        prompt: The kind that batches have too, as "prompt", for what makes captions of prompts.
        **kwargs: As for `CaptionedImages` and `ImageFolder`.

    Raises:
        ValueError: If the weights do not sum to 1.
    """

    def __init__(
        self,
        captions: dict[str, float] | None = None,
        sources: dict[str, CaptionSource] | None = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if captions is not None:
            check_blend(captions)
        self.weights, self.sources, self.prompt = captions, sources or {}, prompt
        self.captions: dict[str, Sequence[str]] = {}
        self.bounds: dict[str, Sequence[float]] = {}
        self.prompt_of: dict[str, Sequence[str]] = {}

    @property
    def default_ask(self) -> str:
        """See `CaptionedImages`."""
        return "val" if self.val_share else "train"

    def read_splits(self) -> Iterable[str]:
        """Lists and splits the pictures that have captions."""
        ImageFolder.setup(self, "fit")
        return chain.from_iterable(self.captions.values())

    def names(self, root: Path, names: list[str]) -> list[str]:
        """Returns the paths of the pictures that have captions.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If there is none of a kind that has a weight.
        """
        every = self.weights is not None or self.prompt is not None
        beside = [captions_beside(root / name, every) for name in names]
        kinds = {KEYS[0]: None} | dict.fromkeys(chain.from_iterable(beside))
        own = {kind: [found.get(kind, ()) for found in beside] for kind in kinds}
        texts, bounds = own[KEYS[0]], [(1.0,)] * len(names)
        if self.weights is not None:
            check_blend(self.weights, [*own, *self.sources])
            texts, bounds = blended(self.weights, own, self.sources, names, self.mention)
        prompts = texts
        if self.prompt is not None:
            check_blend({self.prompt: 1.0}, [*own, *self.sources], "prompt")
            prompts, _ = blended({self.prompt: 1.0}, own, self.sources, names, self.mention)
        self.captions = {n: found for n, found, p in zip(names, texts, prompts) if found and p}
        self.prompt_of = dict(zip(names, prompts))
        self.bounds = dict(zip(names, bounds))
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
        files.texts = [self.captions[name] for name in names]
        if self.weights is not None:
            files.blend = Blend([self.bounds[name] for name in names], self.seed)
        if self.prompt is not None:
            files.prompts = [self.prompt_of[name] for name in names]
        return files


def captions_beside(picture: Path, every: bool) -> dict[str, list[str]]:
    """Returns the captions of a picture by kind, as `plain_text` gives them.

    Args:
        picture: Its file.
        every: Whether to read the .json file also where there is a .txt file.

    Raises:
        ValueError: If a file cannot be read, or is too large.
    """
    files = [path for x in (".txt", ".json") if (path := picture.with_suffix(x)).is_file()]
    found: dict[str, list[str]] = {}
    try:
        for path in files if every else files[:1]:
            if (size := path.stat().st_size) > LARGEST:
                raise ValueError(f"{size:,} bytes, more than {LARGEST:,}")
            content = path.read_text(encoding="utf-8-sig")
            values: dict[str, Any] = json.loads(content) if path.suffix == ".json" else {}
            values |= {KEYS[0]: content} if path.suffix == ".txt" else {}
            for kind, value in values.items():
                texts = [value] if isinstance(value, str) else value
                if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
                    found.setdefault(kind, [x for x in map(plain_text, texts) if x])
                elif kind in KEYS:
                    raise TypeError(f"a {type(value).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        expected = f"UTF-8 text, or JSON with texts under {' or '.join(KEYS)}"
        raise ValueError(
            f"data.root: {picture} has an unreadable caption ({error}); expected {expected}"
        ) from None
    if KEYS[1] in found:
        found.setdefault(KEYS[0], found[KEYS[1]])
    return found
