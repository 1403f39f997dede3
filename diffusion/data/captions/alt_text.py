"""Captions as bad as those that pictures of the web come with."""

from collections.abc import Callable, Sequence

from diffusion.common.hashing import share_of
from diffusion.common.validate import check_counts
from diffusion.data.captions.base import CaptionSource, Texts

KINDS = ("short", "truncated", "swapped", "filler")
BEFORE = ("free download", "photo of the day", "click to enlarge", "buy now")
BEHIND = ("high resolution", "stock picture", "clipart 512px", "thumbnail")


class AltText(CaptionSource):
    """A share of another source's captions, spoilt in one of four ways, equally often.

        short       one of its words of four letters or more
        truncated   the first half of its words
        swapped     the caption of another picture
        filler      "free download IMG_4711, ‹the caption›, stock picture"

    Which captions are spoilt, and how, depends on the seed and on the picture's name alone, so a
    larger share spoils those of a smaller one, and more; only what is swapped in depends on which
    pictures there are.

    Args:
        of: The key of the source.
        share: How many of the captions are spoilt, 0 … 1.
        seed: Decides which.

    Raises:
        ValueError: If the share is none.
    """

    def __init__(self, of: str, share: float, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"AltText.share: {share}; expected 0 ≤ share ≤ 1")
        check_counts("AltText", least=0, seed=seed)
        self.of, self.share, self.seed = of, share, seed

    def captions(self, names: Sequence[str], given: Callable[[str], Texts]) -> Texts:
        """See `CaptionSource`."""
        texts, found = given(self.of), list[list[str]]()
        for i, (name, own) in enumerate(zip(names, texts)):
            if self._drawn(name, "whether") < self.share:
                other = texts[(i + 1 + self._number(name, "other", len(texts) - 1)) % len(texts)]
                found.append([self._spoilt(name, text, [*other, text][0]) for text in own])
            else:
                found.append([*own])
        return found

    def _spoilt(self, name: str, text: str, other: str) -> str:
        words = text.split()
        match KINDS[self._number(name, "how", len(KINDS))]:
            case "short":
                long = [word for word in words if len(word) > 3] or words
                return long[self._number(name, "word", len(long))]
            case "truncated":
                return " ".join(words[: -(-len(words) // 2)])
            case "swapped":
                return other
            case _:
                before = BEFORE[self._number(name, "before", len(BEFORE))]
                behind = BEHIND[self._number(name, "behind", len(BEHIND))]
                return f"{before} IMG_{self._number(name, 'file', 10_000):04}, {text}, {behind}"

    def _drawn(self, name: str, what: str) -> float:
        return share_of(f"{self.seed} {what} {name}")

    def _number(self, name: str, what: str, n: int) -> int:
        """Returns a number in 0 … n − 1; 0 if n is 0."""
        return int(self._drawn(name, what) * n)
