"""Any folder of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from diffusion.common.hashing import share_of
from diffusion.common.validate import check_choice, check_counts, check_shares, first_few
from diffusion.data.base import Images
from diffusion.data.controls.beside import Beside
from diffusion.data.reading.beside_files import check_sizes, control_file, with_controls
from diffusion.data.reading.class_folders import ClassFolders, classes_remedy
from diffusion.data.reading.decoding import is_readable
from diffusion.data.reading.image_files import Files
from diffusion.data.reading.listing import list_pictures
from diffusion.data.requests.small_pictures import SmallPictures
from diffusion.spec import DataSpec


class ImageFolder(Images):
    """The JPEG, PNG, WebP, BMP and GIF files under a folder.

    Subfolders of the root that hold pictures are its classes, sorted by name; a root without
    subfolders has none. Whether a picture is for validation depends on its class and its path in
    there alone, so adding pictures moves no other. Validation and test set are the same. Samples
    are drawn without the pictures, as a checkpoint has the names of the classes.

    A control NAME that is `Beside` or `Drawn` is in files: `cat.NAME.png` beside `cat.jpg`, of the
    same size. Pictures without one are left out and counted.

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

    has_beside = Beside

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
        self.folders, self.classes = ClassFolders(root, classes), list[str]()
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
        return classes_remedy(spec, self.classes)

    def setup(self, stage: str) -> None:
        """Lists the pictures, leaves out those that are cut short, and splits the rest.

        Samples need nothing of this.

        Raises:
            FileNotFoundError: If the folder is missing or holds no picture.
            ValueError: If too many are unreadable, only some have a class, a control is of another
                size than its picture, or a split is empty.
        """
        if self.is_set_up or stage == "predict":
            return
        root, folders = Path(self.root).expanduser(), self.folders
        listing = list_pictures(root)
        names = with_controls(listing.names, self.beside, self.mention)
        names = folders.take(self.names(root, names), self.mention)
        self.classes, self.num_classes = folders.classes, len(folders.classes) or None
        names = self._without_unreadable(root, names)
        check_sizes(root, names, self.beside)
        wanted = folders.class_of if folders.chosen else listing.folders
        if left_out := listing.left_out(names, [x for x in listing.folders if x in wanted]):
            self.mention(f"left out of {self.root!r}: {left_out}")
        held_out = self.held_out(names)
        train = [name for name in names if name not in held_out]
        if not train or (self.val_share > 0 and not held_out):
            raise ValueError(
                f"data.val_share: {self.val_share}; expected at least 1 picture in each set, it "
                f"puts {len(train)} into the training and {len(held_out)} into the validation set"
            )
        self.train_set = self._files(root, train)
        self.val_set = self.test_set = self._files(root, [x for x in names if x in held_out])

    def names(self, root: Path, names: list[str]) -> list[str]:
        """Returns the pictures under the root to take."""
        return names

    def held_out(self, names: list[str]) -> set[str]:
        """Returns the pictures that are for validation."""
        found = {name for name in names if share_of(self.folders.key(name)) < self.val_share}
        train = [name for name in names if name not in found]
        if lacking := sorted(_first_folders(names) - _first_folders(train)):
            self.mention(
                f"val_share: all pictures of {first_few(lacking, 10)} are for validation; there is "
                "nothing to train these classes by"
            )
        return found

    def _files(self, root: Path, names: list[str]) -> Files:
        labels = self.folders.labels(names)
        numbers = None if labels is None else torch.tensor(labels, dtype=torch.int64)
        channels, size, _ = self.shape
        files = Files(root, names, numbers, size, channels, self.max_unreadable)
        files.beside = {name: control.channels for name, control in self.beside.items()}
        return files

    def _without_unreadable(self, root: Path, names: list[str]) -> list[str]:
        channels, size, _ = self.shape
        kept = [
            name
            for name in names
            if all(
                is_readable(root / file, size, channels)
                for file in (name, *(control_file(name, control) for control in self.beside))
            )
        ]
        if bad := sorted({*names} - {*kept}):
            n, which, share = len(names), first_few(bad, 10), self.max_unreadable
            found = f"{len(bad)} of {n} pictures in {self.root!r} are unreadable: {which}"
            if len(bad) > share * n:
                raise ValueError(
                    f"data.max_unreadable: {share}; expected their share or more: {found}"
                )
            self.mention(f"skipped: {found}")
        return kept


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


def _first_folders(names: Sequence[str]) -> set[str]:
    return {name.split("/")[0] for name in names if "/" in name}
