"""Captions in a file, such as a captioner writes."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from diffusion.data.captions.base import CaptionSource, Texts
from diffusion.data.requests.prompts import plain_text


class CaptionFile(CaptionSource):
    """A JSON file {picture: caption, or a list of captions}.

    Pictures are called by their paths under the folder of the data, with or without the ending, or
    as "google-1f98a", style and code points, of `Emoji`.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def read(self) -> Mapping[str, tuple[str, ...]]:
        """The captions by the pictures' names without endings.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is something else.
        """
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"data.sources: {path}; expected a JSON file, there is none")
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8-sig")))
            lists = {stem(k): [v] if isinstance(v, str) else [*v] for k, v in found.items()}
            if not all(isinstance(text, str) for texts in lists.values() for text in texts):
                raise TypeError("a caption is no text")
            return {k: tuple(filter(None, map(plain_text, v))) for k, v in lists.items()}
        except (ValueError, TypeError, RecursionError) as error:
            expected = "expected JSON {picture: caption or list of captions}"
            raise ValueError(f"data.sources: {path}; {expected} ({error})") from None

    def captions(self, names: Sequence[str], given: Callable[[str], Texts]) -> Texts:
        """See `CaptionSource`.

        Raises:
            ValueError: If the file has none of the pictures.
        """
        found = [self.read.get(stem(name), ()) for name in names]
        if names and not any(found):
            raise ValueError(
                f"data.sources: {self.path}; expected captions of pictures such as {names[0]}, it "
                f"has none of {len(names)}"
            )
        return found


def stem(name: str) -> str:
    """Returns a picture's name without its ending."""
    return str(PurePosixPath(name).with_suffix(""))
