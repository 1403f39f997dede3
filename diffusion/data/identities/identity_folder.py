"""A folder of one's own whose subfolders are persons."""

from collections import Counter
from pathlib import Path
from typing import Any

from diffusion.common.hashing import share_of
from diffusion.common.validate import first_few
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.image_folder import ImageFolder
from diffusion.data.reading.image_files import Files


class IdentityFolder(Identities, ImageFolder):
    """An `ImageFolder` whose subfolders are persons, with at least two pictures each.

    A share `val_share` of the persons, at least one, are for validation and testing, with all their
    pictures. Which ones depends on the names of their folders. Persons with one picture are left
    out and counted. Faces are best brought to the same place before: `FaceFinder` and `alignment`.

    Args:
        **kwargs: As for `ImageFolder`; `classes` says which folders to take.
    """

    def names(self, root: Path, names: list[str]) -> list[str]:
        """Returns the pictures of persons with several of them.

        Raises:
            ValueError: If there are less than two such persons, or pictures of nobody.
        """
        count = Counter(name.split("/")[0] for name in names if "/" in name)
        kept = {person for person, n in count.items() if n > 1}
        if len(kept) < 2:
            raise ValueError(
                f"data.root: {self.root}; expected at least 2 subfolders, one a person, with 2 "
                f"pictures or more each, it has {len(kept)}"
            )
        if alone := sorted(count.keys() - kept):
            self.mention(f"left out persons with one picture: {first_few(alone, 10)}")
        return [name for name in names if "/" not in name or name.split("/")[0] in kept]

    def held_out(self, names: list[str]) -> set[str]:
        """Returns all pictures of some persons."""
        person = {name: self.folders.key(name).split("/")[0] for name in names}
        order = sorted({*person.values()}, key=share_of)
        chosen = {*order[: max(1, round(self.val_share * len(order)))]} if self.val_share else set()
        return {name for name in names if person[name] in chosen}

    def setup(self, stage: str) -> None:
        """See `ImageFolder`; also numbers the persons, those to train on first."""
        if self.is_set_up or stage == "predict":
            return
        super().setup(stage)
        first, sets = 0, []
        for files in (self.train_set, self.val_set):
            assert isinstance(files, Files)
            assert files.labels is not None
            _, numbers = files.labels.unique(return_inverse=True)
            files.labels = None
            sets.append(WithAnother(files, numbers + first, range(len(files))))
            first += int(numbers.max()) + 1 if len(numbers) else 0
        self.train_set, self.val_set = sets
        self.test_set, self.classes, self.num_classes = self.val_set, [], None

    def restore(self, spec: Any) -> None:
        """Persons are no classes: there is nothing to restore."""
        self.is_restored = True
