"""Controls that samples obey, those of real pictures: `given_controls.py` has others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.data.requests.base import Ask
from diffusion.data.requests.prompts import Captions
from diffusion.spec import Batch


@dataclass
class Controlled(Ask):
    """Samples have the controls of real pictures: NAME, float32 (B, c, H, W) in [0, 1].

    They are those of the pictures whose captions the samples have; without captions, those of
    pictures of the samples' classes, in a fixed random order.

    Args:
        pictures: Which pictures these are.
        controls: What makes them, by NAME, as the digest has it.
        read: From a batch of pictures as the set has it to one with controls.
    """

    argument = "controls"

    pictures: Captions
    controls: Mapping[str, object]
    read: Callable[[Batch], Batch]

    def __post_init__(self) -> None:
        self.keys = tuple(self.controls)

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the controls for the classes in turn, if there are any."""
        return self._of(self.pictures.rows(numbers))

    def start(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the controls for the captions or classes that a batch asks for."""
        numbers = batch["index"].tolist()
        if "text" in batch or "label" not in batch:
            return self.ask(numbers)
        turns = [i // len(self.pictures.labels or [0]) for i in numbers]
        return self._of(self.pictures.rows_of(batch["label"].tolist(), turns))

    def digest(self) -> str:
        """Returns the controls, the split, and 16 digits that change with its pictures."""
        made = ", ".join(f"{name}: {control}" for name, control in self.controls.items())
        return f"{made} of {self.pictures.split} {self.pictures.pictures.digest().hex()[:16]}"

    def _of(self, rows: Sequence[int]) -> dict[str, Tensor]:
        batch = self.read(self.pictures.pictures.__getitems__(rows))
        return {name: batch[name] for name in self.keys}
