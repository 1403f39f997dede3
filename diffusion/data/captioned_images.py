"""Data whose samples are asked for in words."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

from diffusion.common.validate import check_choice
from diffusion.data.base import Images
from diffusion.data.requests.base import Ask
from diffusion.data.requests.prompts import Captions, Prompts, plain_text
from diffusion.data.requests.small_pictures import Shrunk, SmallPictures
from diffusion.data.sets import Memory


@runtime_checkable
class TextReader(Protocol):
    """A model that says whether it reads texts."""

    @property
    def reads_texts(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class Factual(Protocol):
    """Data that knows what is true of its pictures, and what a text says of one, by kinds.

    Attributes:
        pictures: All of them.
        names: What files call each.
        truth: The facts of the picture that has a caption, by the caption.
    """

    pictures: Memory
    names: list[str]
    truth: dict[str, dict[str, frozenset[str]]]

    def setup(self, stage: str) -> None:
        """Reads them."""
        ...

    def said(self, text: str) -> Mapping[str, frozenset[str]]:
        """Returns what a text says, by the same kinds."""
        ...


class CaptionedImages(Images):
    """Data with captions: samples have prompts in turn, or the captions of a split.

    A subclass sets its `shape` before it calls `__init__`, or inherits from one that does.

    Args:
        prompts: What `predict` asks for in turn, or None for captions of the split `ask`; beside
            an `image_prompt` that is given by hand, None is the empty text.
        ask: The split whose captions and classes `predict` asks for; None for `default_ask`.
        low_size: If not None, batches also have "low_res", as `SmallPictures` says; with neither
            `low_root` nor prompts, samples get that of the picture whose caption they have.
        low_root: A folder of small pictures to draw samples from.
        **kwargs: As for `Images`.

    Attributes:
        texts: After `setup`, all captions and prompts, sorted.

    Raises:
        ValueError: If the list is empty, there is no such split, or the sizes do not divide.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        ask: Literal["train", "val", "test", "pairs"] | None = None,
        low_size: int | None = None,
        low_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if prompts is not None and not prompts:
            raise ValueError("data.prompts: []; expected null or at least one")
        if prompts is None and isinstance(self.image_prompt, str):
            prompts = [""]
        self.prompts = prompts and [plain_text(text) for text in prompts]
        self.ask = ask or self.default_ask
        check_choice("data", self.SPLITS, ask=self.ask)
        self.low = None if low_size is None else SmallPictures(low_size, low_root, self.shape)

    @property
    def default_ask(self) -> str:
        """The split whose captions are asked for where nothing says which."""
        return "val"

    @abstractmethod
    def read_splits(self) -> Iterable[str]:
        """Sets the splits, and returns the captions of all pictures."""

    def setup(self, stage: str) -> None:
        """Reads the pictures and their captions; samples of prompts or labels need neither.

        Raises:
            FileNotFoundError: If they are needed and not there.
            ValueError: If they cannot be read.
        """
        self.texts = self.texts or sorted({*(self.prompts or [])})
        if not self.is_set_up and (stage != "predict" or self.needs_pictures):
            with offering_prompts(stage == "predict"):
                self.texts = sorted({*self.texts, *self.read_splits()})

    @property
    def _shrinks(self) -> bool:
        """Whether samples start from small versions of the pictures whose captions they have."""
        return self.prompts is None and self.low is not None and self.low.root is None

    @property
    def _is_controlled(self) -> bool:
        """Whether samples have the controls of the pictures whose captions they have."""
        return bool(self.controls) and self.control is None

    def likenesses(self) -> Captions | None:
        """Returns the pictures whose captions samples have; None where they have prompts."""
        return self._captions() if self.prompts is None else None

    @property
    def needs_pictures(self) -> bool:
        """Whether samples are asked for by pictures: their captions, small versions or controls.

        They are not where there are prompts, or where the model reads labels alone.
        """
        pictured = self._shrinks or self._is_controlled or self.image_prompt is True
        if self.prompts is not None or pictured:
            return self.prompts is None
        model = None if self.trainer is None else self.trainer.lightning_module
        return not isinstance(model, TextReader) or model.reads_texts

    def asks(self) -> list[Ask]:
        """Returns prompts, or captions and what else is known of the pictures that have them."""
        if self.prompts is not None:
            return [Prompts(self.prompts)]
        if not self.needs_pictures and not self.is_set_up:
            return super().asks()
        return [self._captions()]

    def picture_asks(self) -> list[Ask]:
        """Returns the pictures that samples start from, shrunk ones among them."""
        found = super().picture_asks()
        if self.low is None or not self._shrinks:
            return found
        small = Shrunk(self._captions(), self.low.size, self.normalize)
        return [small if ask is self.low else ask for ask in found]

    def _captions(self) -> Captions:
        labels = None if self.labels is None else self.asked_classes()
        ask = self.ask or self.default_ask
        return Captions(self.split(ask), ask, labels)

    @property
    def frequencies(self) -> None:
        """None: captions of a split come with their classes, as often as they are there."""


@contextmanager
def offering_prompts(sampling: bool) -> Iterator[None]:
    """Says that prompts would do, where samples are to be drawn and the pictures are not there."""
    try:
        yield
    except FileNotFoundError as error:
        if not sampling:
            raise
        raise FileNotFoundError(
            "data.prompts: null; expected a text to draw, such as --prompt 'a red fox', or "
            f"pictures with captions to draw anew: {error}"
        ) from None
