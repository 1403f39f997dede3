# pyright: strict
"""What a data set is, in a few plain values: kept in checkpoints and compared before a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Batch = Mapping[str, Any]  # what a data module yields: tensors (B, ...), and lists of texts
DATA = "data"  # the key of a checkpoint that has the description of what it was trained on


@dataclass(frozen=True)
class DataSpec:
    """Describes data: its name, shape, classes and grey levels.

    Args:
        name: Of the data module's class; None if it is not known.
        shape: One sample's: (C, H, W), or (D,) for points.
        num_classes: Number of classes, None without labels.
        classes: Their names, a label being the place in this list; empty if they have none.
        levels: Number of grey levels, None for continuous data.
        captioned: Whether samples have texts.

    Raises:
        ValueError: If a value is of another type or out of its range.
    """

    name: str | None
    shape: tuple[int, ...]
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    levels: int | None = 256
    captioned: bool = False

    def __post_init__(self) -> None:
        def counts(value: Any, least: int) -> bool:
            return type(value) is int and value >= least

        def text(value: Any) -> bool:
            return isinstance(value, str)

        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "classes", tuple(self.classes))
        right = {
            "name": self.name is None or text(self.name),
            "shape": bool(self.shape) and all(counts(side, 1) for side in self.shape),
            "num_classes": self.num_classes is None or counts(self.num_classes, 1),
            "classes": all(map(text, self.classes)) and len(self.classes) in (0, self.num_classes),
            "levels": self.levels is None or counts(self.levels, 2),
            "captioned": type(self.captioned) is bool,
        }
        if wrong := [key for key, fits in right.items() if not fits]:
            value = str(asdict(self)[wrong[0]])[:80]
            raise ValueError(f"spec.{wrong[0]}: {value}; expected as `DataSpec` says")

    def plain(self) -> dict[str, Any]:
        """Returns the values as a checkpoint or a JSON file holds them."""
        return {**asdict(self), "shape": list(self.shape), "classes": list(self.classes)}

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any]) -> "DataSpec | None":
        """Returns what a checkpoint was trained on, or None if it does not say.

        Raises:
            ValueError: If what it says is no description.
        """
        values = checkpoint.get(DATA)
        if values is None:
            return None
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint: its description of the data is damaged ({str(error)[:120]}); "
                "expected one of this project"
            ) from None

    def difference(self, other: "DataSpec", labels: bool = True) -> tuple[str, str] | None:
        """Returns the first thing that differs: what this one has, what the other has.

        Where one of them has no name, nobody knows its grey levels; where one has no names of
        classes, labels of data with another name may mean something else.

        Args:
            other: What to compare with.
            labels: Whether labels matter.
        """
        named = self.name is not None and other.name is not None
        if self.shape != other.shape:
            return f"samples of shape {self.shape}", f"{other.shape}"
        if named and self.levels != other.levels:
            return grey(self.levels), grey(other.levels)
        if not labels:
            return None
        if self.num_classes != other.num_classes:
            return self._count(other), other._count(self)
        for k, (here, there) in enumerate(zip(self.classes, other.classes)):
            if here != there:
                return f"'{here}' as class {k}", f"'{there}'"
        unnamed = self.num_classes and not (self.classes and other.classes)
        if unnamed and named and self.name != other.name:
            return f"the labels of {self.name}", f"those of {other.name}"
        return None

    def _count(self, other: "DataSpec") -> str:
        """Returns how many classes there are, and a name that the other has not."""
        if self.num_classes is None:
            return "no classes"
        new = [name for name in self.classes if name not in other.classes] if other.classes else []
        only = f" ('{new[0]}' {'is one' if len(new) == 1 else 'among them'})" if new else ""
        return f"{self.num_classes} classes{only}"

    def moved(self, other: "DataSpec") -> str | None:
        """Returns a class of both that has another number in each, or None."""
        places = {name: k for k, name in enumerate(other.classes)}
        both = ((name, k) for k, name in enumerate(self.classes) if name in places)
        return next((name for name, k in both if places[name] != k), None)


def grey(levels: int | None) -> str:
    """Returns the number of grey levels in words."""
    return "continuous values" if levels is None else f"{levels} grey levels"
