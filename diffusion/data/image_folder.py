"""Any folder of pictures."""

import difflib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffusion.common.hashing import share_of
from diffusion.common.validate import check_choice, check_counts, check_shares, first_few
from diffusion.data.base import Images
from diffusion.data.reading.decoding import looks_complete, read_picture
from diffusion.data.reading.image_files import Files
from diffusion.data.reading.listing import Listing, list_pictures
from diffusion.data.requests.small_pictures import SmallPictures
from diffusion.spec import DataSpec


class ImageFolder(Images):
    """The JPEG, PNG, WebP, BMP and GIF files under a folder.

    Subfolders of the root that hold pictures are its classes, sorted by name; a root without
    subfolders has none. Whether a picture is for validation depends on its class and its path in
    there alone, so adding pictures moves no other. Validation and test set are the same. Samples
    are drawn without the pictures, as a checkpoint has the names of the classes.

    Args:
        root: The folder.
        size: Height and width: the shorter side is resized to it and the centre cropped.
        channels: 1 for grey, 3 for colour.
        val_share: Share of the pictures for validation.
        max_unreadable: Share of the pictures that may be unreadable, and are then skipped.
        classes: The class folders to take, in the order of their labels; or the class of each, as
            {folder: class}, numbered as they come up first. Others are left out. None for all.
        **kwargs: As for `Images`.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        root: str,
        size: int,
        channels: int = 3,
        val_share: float = 0.05,
        max_unreadable: float = 0.01,
        classes: list[str] | dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_counts("data", size=size)
        check_choice("data", (1, 3), channels=channels)
        check_shares("data", val_share=val_share, max_unreadable=max_unreadable)
        self.root, self.shape = root, (channels, size, size)
        self.val_share, self.max_unreadable = val_share, max_unreadable
        self.classes: Sequence[str] = []
        self.chooses, self.class_of = classes is not None, _class_of(classes)
        self.is_restored = False

    @property
    def is_known(self) -> bool:
        """Whether the folder was read, or a checkpoint said what is in it."""
        return self.is_set_up or self.is_restored

    def restore(self, spec: DataSpec) -> None:
        """Takes the classes from a checkpoint, which samples are asked for by."""
        super().restore(spec)
        self.is_restored = True

    def remedy(self, spec: DataSpec) -> str:
        """Returns which argument would make this the data that a checkpoint was trained on."""
        if spec.shape != self.shape:
            return f"data.size: {spec.shape[-1]} and data.channels: {spec.shape[0]} make them so"
        folders = [name if name in self.classes else f"FOLDER: {name}" for name in spec.classes]
        listed = ", ".join(folders)
        if not self.classes or not folders or len(listed) > 150:
            return "data.classes says which folder is which class"
        if "FOLDER" not in listed:
            return f"--data.classes '[{listed}]' takes these folders as they were"
        both = (f if ":" in f else f"{f}: {f}" for f in folders)
        return f"--data.classes '{{{', '.join(both)}}}' says which folder is which class"

    def setup(self, stage: str) -> None:
        """Lists the pictures, leaves out those that are cut short, and splits the rest.

        Samples need nothing of this.

        Raises:
            FileNotFoundError: If the folder is missing or holds no picture.
            ValueError: If too many are unreadable, only some have a class, or a split is empty.
        """
        if self.is_set_up or stage == "predict":
            return
        root = Path(self.root).expanduser()
        listing = list_pictures(root)
        names = self._classed(self.names(root, listing.names))
        names = self._without_unreadable(root, names)
        self._mention(listing, names)
        val, train = ([x for x in names if self._split_of(x) == it] for it in ("val", "train"))
        if not train or (self.val_share > 0 and not val):
            raise ValueError(
                f"data.val_share: {self.val_share}; expected at least 1 picture in each set, it "
                f"puts {len(train)} into the training and {len(val)} into the validation set"
            )
        self.train_set = self._files(root, train)
        self.val_set = self.test_set = self._files(root, val)

    def names(self, root: Path, names: list[str]) -> list[str]:
        """Returns the pictures under the root to take."""
        return names

    def _mention(self, listing: Listing, names: list[str]) -> None:
        """Warns in one line of what is left out, and which classes have nothing to learn from."""
        of = self.class_of or {}
        chosen = [x for x in listing.folders if x in of or not self.chooses]
        if left_out := listing.left_out(names, chosen):
            self.mention(f"left out of {self.root!r}: {left_out}")
        train = {name.split("/")[0] for name in names if self._split_of(name) == "train"}
        lacking = sorted({name.split("/")[0] for name in names if "/" in name} - train)
        if self.classes and lacking:
            self.mention(
                f"val_share: all pictures of {first_few(lacking, 10)} are for validation; there is "
                "nothing to train these classes by"
            )

    def _split_of(self, name: str) -> str:
        return "val" if share_of(self._key(name)) < self.val_share else "train"

    def _classed(self, names: list[str]) -> list[str]:
        """Decides what the classes are, and returns the pictures that are in them.

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
        if self.class_of is None:
            of = {folder: class_of_folder(folder) for folder in folders}
            self.class_of = dict(sorted(of.items(), key=lambda item: item[1]))
        other = [folder for folder in folders if folder not in self.class_of]
        missing = [folder for folder in self.class_of if folder not in folders]
        if missing and other:  # perhaps a renamed one, whose pictures would go without a word
            near = difflib.get_close_matches(missing[0], other, n=1)
            nearest = f"the nearest is {near[0]!r}" if near else f"expected some of {other[:9]}"
            raise ValueError(f"data.classes: no folder {missing[0]!r} in {self.root!r}; {nearest}")
        if missing:
            self.mention(f"data.classes: no pictures of {first_few(missing, 10)} in {self.root!r}")
        if other:
            self.mention(f"data.classes: left out {first_few(other, 10)}, {len(other)} folders")
        self.classes = list(dict.fromkeys(self.class_of.values()))
        self.num_classes = len(self.classes) or None
        return [name for name in names if not folders or name.split("/")[0] in self.class_of]

    def _key(self, name: str) -> str:
        """Returns a picture's class and its path in there, whatever the folder is called."""
        folder, _, rest = name.partition("/")
        return f"{self.class_of[folder]}/{rest}" if self.class_of else name

    def _files(self, root: Path, names: list[str]) -> Files:
        number = {name: i for i, name in enumerate(self.classes)}
        of = self.class_of or {}
        classes = torch.tensor([number[of[name.split("/")[0]]] for name in names if number])
        labels = classes.long() if number else None
        channels, size, _ = self.shape
        return Files(root, names, labels, size, channels, self.max_unreadable)

    def _without_unreadable(self, root: Path, names: list[str]) -> list[str]:
        bad = [name for name in names if not self._is_readable(root / name)]
        if not bad:
            return names
        n, which = len(names), first_few(bad, 10)
        found = f"{len(bad)} of {n} pictures in {self.root!r} are unreadable: {which}"
        if len(bad) > self.max_unreadable * len(names):
            share = self.max_unreadable
            raise ValueError(f"data.max_unreadable: {share}; expected their share or more: {found}")
        self.mention(f"skipped: {found}")
        left_out = set(bad)
        return [name for name in names if name not in left_out]

    def _is_readable(self, path: Path) -> bool:
        if looks_complete(path):
            return True
        channels, size, _ = self.shape
        try:
            read_picture(path, size, channels)
        # Decoders fail in many ways: OSError, SyntaxError, struct.error, zlib.error, …
        except Exception:
            return False
        return True


class Upsampling(ImageFolder):
    """An `ImageFolder` whose batches also have "low_res", as `SmallPictures` says.

    Args:
        low_size: Height and width of the small pictures, a divisor of `size`.
        low_root: The folder of small pictures, or None if nothing is to be drawn.
        **kwargs: As for `ImageFolder`.

    Raises:
        ValueError: If the sizes do not divide.
        FileNotFoundError: If `low_root` is no folder.
    """

    def __init__(self, low_size: int, low_root: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low = SmallPictures(low_size, low_root, self.shape)


def _class_of(classes: Sequence[str] | Mapping[str, str] | None) -> dict[str, str] | None:
    """Returns the class of each folder that `classes` names, None for all as they are.

    Raises:
        ValueError: If it names none, or one twice.
    """
    if classes is None:
        return None
    found = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
    if not found or len(found) < len(classes):
        raise ValueError(f"data.classes: {classes}; expected null or different class folders")
    return found


def class_of_folder(folder: str) -> str:
    """Returns the class of a folder: its name, composed, bytes that are no text as escapes."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "backslashreplace"))
