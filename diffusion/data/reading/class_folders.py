"""Which folder is which class."""

import difflib
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from diffusion.common.validate import first_few
from diffusion.spec import DataSpec


class ClassFolders:
    """The classes of pictures by the first folder of their path under a root.

    Args:
        root: What errors call it.
        classes: The folders to take, in the order of their labels; or the class of each, as
            {folder: class}, numbered as they come up first. None for all, sorted by class.

    Attributes:
        chosen: Whether `classes` said which to take.
        class_of: The class of each folder, once it is known.

    Raises:
        ValueError: If `classes` names none, or one twice.
    """

    def __init__(self, root: str, classes: Sequence[str] | Mapping[str, str] | None) -> None:
        self.root, self.chosen = root, classes is not None
        self.class_of: dict[str, str] = {}
        if classes is not None:
            self.class_of = dict(classes if isinstance(classes, Mapping) else zip(classes, classes))
            if not classes or len(self.class_of) < len(classes):
                raise ValueError(
                    f"data.classes: {classes}; expected null or different class folders"
                )

    @property
    def classes(self) -> list[str]:
        """The classes, in the order of their labels."""
        return list(dict.fromkeys(self.class_of.values()))

    def take(self, names: list[str], mention: Callable[[str], None]) -> list[str]:
        """Returns the pictures that have a class, or all of them where none has.

        Args:
            names: Paths of pictures under the root.
            mention: Called with what is left out.

        Raises:
            ValueError: If only some have a class, or a folder in `classes` is not there.
        """
        folders = sorted({name.split("/")[0] for name in names if "/" in name})
        loose = sum("/" not in name for name in names)
        if folders and loose:
            raise ValueError(
                f"data.root: {self.root}; expected either pictures or class folders, it holds "
                f"{loose} pictures beside the folder {folders[0]!r}"
            )
        if not self.chosen:
            class_of = {folder: class_of_folder(folder) for folder in folders}
            self.class_of = dict(sorted(class_of.items(), key=lambda item: item[1]))
        other = [folder for folder in folders if folder not in self.class_of]
        missing = [folder for folder in self.class_of if folder not in folders]
        if missing and other:  # perhaps a renamed one, whose pictures would go without a word
            near = difflib.get_close_matches(missing[0], other, n=1)
            nearest = f"the nearest is {near[0]!r}" if near else f"expected some of {other[:9]}"
            raise ValueError(f"data.classes: no folder {missing[0]!r} in {self.root!r}; {nearest}")
        if missing:
            mention(f"data.classes: no pictures of {first_few(missing, 10)} in {self.root!r}")
        if other:
            mention(f"data.classes: left out {first_few(other, 10)}, {len(other)} folders")
        return [name for name in names if not folders or name.split("/")[0] in self.class_of]

    def key(self, name: str) -> str:
        """Returns a picture's class and its path in there, whatever the folder is called."""
        folder, _, rest = name.partition("/")
        return f"{self.class_of[folder]}/{rest}" if self.class_of else name

    def labels(self, names: Sequence[str]) -> list[int] | None:
        """Returns the numbers of the classes of pictures; None without classes."""
        number = {name: i for i, name in enumerate(self.classes)}
        return [number[self.class_of[name.split("/")[0]]] for name in names] if number else None


def classes_remedy(spec: DataSpec, classes: Sequence[str]) -> str:
    """Returns which `data.classes` would make these classes those that a checkpoint knows."""
    folders = [name if name in classes else f"FOLDER: {name}" for name in spec.classes]
    listed = ", ".join(folders)
    if not classes or not folders or len(listed) > 150:
        return "data.classes says which folder is which class"
    if "FOLDER" not in listed:
        return f"--data.classes '[{listed}]' takes these folders as they were"
    both = (f if ":" in f else f"{f}: {f}" for f in folders)
    return f"--data.classes '{{{', '.join(both)}}}' says which folder is which class"


def class_of_folder(folder: str) -> str:
    """Returns the class of a folder: its name, composed, bytes that are no text as escapes."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "backslashreplace"))
