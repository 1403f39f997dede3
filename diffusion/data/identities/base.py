# pyright: strict
"""Data whose pictures are of known persons."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from diffusion.common.alignment import Finder
from diffusion.data.base import Images
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.given_poses import KEY, GivenPoses, given_points
from diffusion.data.identities.key_points import KeyPoints
from diffusion.data.requests.base import Ask
from diffusion.data.requests.given_identity import GivenIdentities, OwnIdentities
from diffusion.spec import Batch


@runtime_checkable
class IdentityReader(Protocol):
    """A model that says whether it reads who is seen."""

    @property
    def reads_identities(self) -> bool:
        """Whether it does."""
        ...


class Identities(Images):
    """Pictures of persons, none of whom is in two splits unless a split's name says so.

    Batches have "person", a number, and "identity", another picture of the same person, in [−1, 1],
    (B, C, H, W): see `WithAnother`.

    Args:
        identity: A picture, or a folder of pictures, of whom samples are to be; None for other
            pictures of the persons whose captions the samples have.
        pose: Five points of a face that samples keep to, where a control is `KeyPoints`: a text, a
            picture with one beside it, or a photograph, see `GivenPoses`; or "test:17", those of
            picture 17 of a split. None for those of the pictures whose captions the samples have.
        finder: What finds a face in a photograph given as pose, such as `FaceFinder`.
        **kwargs: As for `Images`.

    Raises:
        ValueError: If pictures with landmarks are to be mirrored, or both a pose and a control are
            given.
    """

    def __init__(
        self,
        identity: str | None = None,
        pose: str | None = None,
        finder: Finder | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.identity, self.pose, self.finder = identity, pose, finder
        if self.flip and self.has_beside is KeyPoints:
            raise ValueError(
                f"data.flip: true; expected false, as {type(self).__name__} has landmarks, whose "
                "left would be right"
            )
        if pose is not None and self.control is not None:
            raise ValueError(f"data.pose: {pose!r}; expected null beside data.control, or that")

    @property
    def num_persons(self) -> int:
        """How many there are to train on: their numbers are 0 … num_persons − 1."""
        pictures = self.split("train")
        assert isinstance(pictures, WithAnother)
        return len(pictures.groups)

    def swapped(self, split: str, sources: Sequence[int], targets: Sequence[int]) -> Tensor | None:
        """Returns the exact truth of swaps, (B, C, H, W) in [−1, 1], where the data knows it.

        Args:
            split: Which split the pictures are of.
            sources: Numbers of B pictures there: whose person it is.
            targets: And whose look.
        """
        return None

    @property
    def posed(self) -> Sequence[str]:
        """The names of the controls that are five points."""
        return [name for name, one in self.controls.items() if isinstance(one, KeyPoints)]

    @cached_property
    def identified(self) -> Ask | None:
        """Whom samples are to be, if that is known."""
        if self.identity is not None:
            return GivenIdentities(self.identity, self.shape)
        if not self._is_asked_who or (pictures := self.likenesses()) is None:
            return None
        made = {"identity": "another picture of the person"}
        return OwnIdentities(pictures, made, lambda batch: self.on_after_batch_transfer(batch, 0))

    @cached_property
    def posing(self) -> Ask | None:
        """The poses given by hand, if there are some."""
        if self.pose is None:
            return None
        if of := re.fullmatch(r"(\w+):(\d+)", self.pose):
            points = self._points(of[1], int(of[2]))
        else:
            points = given_points(self.pose, self.finder)
        return GivenPoses(points, self.posed, self.shape)

    def _points(self, split: str, number: int) -> Tensor:
        """Returns the points of a picture of a split, shares of the side, (1, 5, 2)."""
        pictures = self.split(split)
        points = None
        if number < len(pictures):
            points = pictures.conditions([number]).get("landmarks")
        if not isinstance(points, Tensor):
            raise ValueError(
                f"{KEY}: {split}:{number}; expected the number of a picture with landmarks, of "
                f"{len(pictures)} in {split}"
            )
        return points / self.shape[-1]

    @property
    def _is_asked_who(self) -> bool:
        """Whether what draws reads identities, as far as that is known."""
        model = None if self.trainer is None else self.trainer.lightning_module
        return not isinstance(model, IdentityReader) or model.reads_identities

    def picture_asks(self) -> list[Ask]:
        """See `Images`; what is given by hand is read first."""
        own = [ask for ask in (self.posing, self.identified) if ask is not None]
        return [*own, *super().picture_asks()]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """See `Images`; "identity" is scaled like "image"."""
        found = super().on_after_batch_transfer(batch, dataloader_idx)
        if isinstance(other := found.get("identity"), Tensor):
            return {**found, "identity": self.normalize(other)}
        return found


def of_persons(data: Images) -> Identities:
    """Returns the data, which says who is seen.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(data, Identities):
        raise ValueError(
            f"data: {type(data).__name__} does not say who is seen; expected data with several "
            "pictures of each person, such as Avatars, Faces or IdentityFolder"
        )
    return data
