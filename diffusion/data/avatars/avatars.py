"""The data module of the avatars."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion.common.validate import check_choice, check_counts
from diffusion.data.avatars.artist import Cast
from diffusion.data.avatars.avatar_caption import avatar_caption
from diffusion.data.avatars.people import MOST
from diffusion.data.captioned_images import CaptionedImages, offering_prompts
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.identities.key_points import KeyPoints
from diffusion.data.sets import Memory


class Avatars(Identities, CaptionedImages):
    """Drawn persons with looks: DiceBear's "micah", of which all that can be known is known.

    A person is hair, beard, glasses, earring, ears and nose with the colours of skin, hair and
    frames, which are continuous; no two persons are the same in what is seen and named. A look is
    eyes, brows, mouth, clothes and background, the head's tilt, scale and place, and whether all is
    mirrored. The splits go by person: about 6 % are for validation, 6 % for testing, and the test
    split also has all who wear a turban or have purple hair, which training never shows.

    The control `KeyPoints` is five points of the face; batches have their places, "landmarks", too.
    The pictures are drawn once, from a pinned package of pip.

    Args:
        root: Folder of the package and of the drawn pictures.
        size: Height and width, a multiple of 8 up to 128.
        style: Which style.
        persons: How many.
        pictures: Of each person.
        half: Train on every second person only, from the first (0) or the second (1); None for all.
            So what conditions and what judges can be trained on other persons.
        download: Get what is missing.
        **kwargs: As for `CaptionedImages`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    has_beside = KeyPoints

    def __init__(
        self,
        root: str = "data",
        size: int = 64,
        style: Literal["micah"] = "micah",
        persons: int = 1600,
        pictures: int = 12,
        half: Literal[0, 1] | None = None,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        self.shape = (3, size, size)
        super().__init__(**kwargs)
        check_choice("data", range(8, 136, 8), size=size)
        check_counts("data", least=40, most=MOST, persons=persons)
        check_counts("data", least=2, pictures=pictures)
        check_choice("data", (0, 1, None), half=half)
        self.root, self.half, self.download = root, half, download
        self.cast = Cast(style, persons, pictures)

    def prepare_data(self) -> None:
        """Draws the pictures, if they are not there; prompts need none.

        Raises:
            FileNotFoundError: If the package could not be fetched.
        """
        sampling = self.trainer is not None and self.trainer.predicting
        if self.download and not (sampling and not self.needs_pictures):
            with offering_prompts(sampling):
                self.cast.draw(self._root, self.shape[-1])

    def read_splits(self) -> Iterable[str]:
        """Reads the drawn pictures and splits them by person."""
        size, cast = self.shape[-1], self.cast
        images, landmarks = cast.read(self._root, size)
        people = [cast.people[one.person] for one in cast.avatars]
        texts = [[avatar_caption(cast.kind, p, x.look)] for p, x in zip(people, cast.avatars)]
        everything = Memory(images, None, texts)
        of_split = {
            split: [i for i, person in enumerate(cast.people) if person.split == split]
            for split in self.SPLITS
        }
        if self.half is not None:
            of_split["train"] = of_split["train"][self.half :: 2]
        number = {person: n for n, person in enumerate(chain(*of_split.values()))}
        persons = torch.tensor([number.get(one.person, -1) for one in cast.avatars])
        self.rows = {
            split: [i for i, one in enumerate(cast.avatars) if one.person in chosen]
            for split, chosen in ((k, {*v}) for k, v in of_split.items())
        }
        made = partial(WithAnother, everything, persons)
        beside = dict.fromkeys(self.beside, size)
        self.train_set, self.val_set, self.test_set = (
            made(self.rows[split], landmarks, beside) for split in self.SPLITS
        )
        return chain(*texts)

    def swapped(self, split: str, sources: Sequence[int], targets: Sequence[int]) -> Tensor:
        """Returns the exact truth of swaps: the persons of some pictures with the looks of others.

        Args:
            split: Which split the pictures are of.
            sources: Numbers of B pictures there: whose person it is.
            targets: And whose look: pose, expression, clothes and background.

        Returns:
            (B, 3, H, W) in [−1, 1].
        """
        self.split(split)
        of, artist = self.rows[split], self.cast.artist(self._root)
        numbers = [of[i] for i in sources], [of[j] for j in targets]
        return self.normalize(self.cast.swapped(artist, self.shape[-1], *numbers))

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser()
