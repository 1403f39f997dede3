# pyright: strict
"""Where captions come from that are not the data's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

Texts = Sequence[Sequence[str]]  # the captions of each picture, any number of them


class CaptionSource(ABC):
    """Captions of pictures: written by a captioner, or made of other captions."""

    @abstractmethod
    def captions(self, names: Sequence[str], given: Callable[[str], Texts]) -> Texts:
        """Returns the captions of each picture of a split, none where there are none.

        Args:
            names: What files call the N pictures: paths, or "google-1f98a" of an emoji.
            given: Returns the captions of the pictures from another source, by its key.
        """
