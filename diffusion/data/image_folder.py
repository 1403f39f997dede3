"""Any folder of pictures."""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from .complete import looks_complete
from .files import Files
from .module import Images
from .picture import picture_names, read_picture
from .shares import share_of


class ImageFolder(Images):
    """The JPEG, PNG, WebP, BMP and GIF files under a folder.

    Subfolders of the root that hold pictures are its classes, sorted by name; a root without
    subfolders has none. Whether a picture is for validation depends on its path alone, so adding
    pictures moves no other. Validation and test set are the same.

    Args:
        root: The folder.
        size: Height and width: the shorter side is resized to it and the centre cropped.
        channels: 1 for grey, 3 for colour.
        val_share: Share of the pictures for validation.
        max_unreadable: Share of the pictures that may be unreadable, and are then skipped.
        **kwargs: As for `Images`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        root: str,
        size: int,
        channels: int = 3,
        val_share: float = 0.05,
        max_unreadable: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if size < 1:
            raise ValueError(f"size: {size}, expected at least 1")
        if channels not in (1, 3):
            raise ValueError(f"channels: {channels}, expected 1 or 3")
        for key, share in (("val_share", val_share), ("max_unreadable", max_unreadable)):
            if not 0 <= share < 1:
                raise ValueError(f"{key}: {share}, expected 0 <= {key} < 1")
        self.root = root
        self.shape = (channels, size, size)
        self.val_share = val_share
        self.max_unreadable = max_unreadable
        self.classes: list[str] = []

    def setup(self, stage: str) -> None:
        """List the pictures, leave out those that are cut short, and split the rest.

        Raises:
            FileNotFoundError: The folder is missing or holds no picture.
            ValueError: Too many are unreadable, only some have a class, or a split is empty.
        """
        if self.is_set_up:
            return
        root = Path(self.root).expanduser()
        names = self._without_unreadable(root, self.names(root))
        self.classes = sorted({name.split("/")[0] for name in names if "/" in name})
        loose = sum("/" not in name for name in names)
        if self.classes and loose:
            raise ValueError(
                f"root: {self.root!r} holds {loose} pictures beside the class folder "
                f"{self.classes[0]!r}, expected either pictures or class folders"
            )
        self.num_classes = len(self.classes) or None
        val = [name for name in names if share_of(name) < self.val_share]
        train = [name for name in names if share_of(name) >= self.val_share]
        if not train or (self.val_share > 0 and not val):
            raise ValueError(
                f"val_share: {self.val_share} puts {len(train)} pictures into the training and "
                f"{len(val)} into the validation set, expected at least 1 in each"
            )
        self.train_set = self._files(root, train)
        self.val_set = self.test_set = self._files(root, val)

    def names(self, root: Path) -> list[str]:
        """Paths of the pictures, relative to the root, sorted.

        Raises:
            FileNotFoundError: There is none.
        """
        return picture_names(root)

    def _files(self, root: Path, names: list[str]) -> Files:
        number = {name: i for i, name in enumerate(self.classes)}
        labels = [number[name.split("/")[0]] for name in names] if number else None
        channels, size, _ = self.shape
        return Files(root, names, labels, size, channels, self.max_unreadable)

    def _without_unreadable(self, root: Path, names: list[str]) -> list[str]:
        bad = [name for name in names if not self._is_readable(root / name)]
        if not bad:
            return names
        listed = ", ".join(bad[:10]) + (", …" if len(bad) > 10 else "")
        found = f"{len(bad)} of {len(names)} pictures in {self.root!r} are unreadable: {listed}"
        if len(bad) > self.max_unreadable * len(names):
            share = self.max_unreadable
            raise ValueError(f"max_unreadable: {found}; expected at most a share of {share}")
        rank_zero_warn(f"skipped: {found}")
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
