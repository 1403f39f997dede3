"""Who samples are to be: pictures given by hand, or those of the persons in real pictures."""

from typing import ClassVar

from diffusion.data.requests.controlled import Controlled
from diffusion.data.requests.given_pictures import GivenPictures


class GivenIdentities(GivenPictures):
    """Samples are of the persons in pictures given by hand."""

    argument: ClassVar[str] = "identity"
    keys = ("identity",)


class OwnIdentities(Controlled):
    """Samples are of the persons whose captions they have, as another picture shows each."""

    argument: ClassVar[str] = "identity"
