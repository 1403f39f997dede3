"""The faces of a picture that can be swapped."""

from torch import Tensor

from diffusion.common.alignment import Face
from diffusion.networks.identity.face_finder import FaceFinder

SMALLEST = 20  # pixels of the smallest face that is looked for
PARTS = 24  # and at least so large a part of the shorter side


def find_faces(
    finder: FaceFinder, picture: Tensor, what: str, most: int | None = None
) -> list[Face]:
    """Returns the faces of a picture (3, H, W) in [−1, 1], from left to right, without profiles.

    Args:
        finder: What finds them.
        picture: Where.
        what: The picture's key and path, for errors.
        most: How many there may be, or None.

    Raises:
        ValueError: If there is none but profiles, or are too many.
    """
    finder.smallest = max(SMALLEST, min(picture.shape[1:]) // PARTS)
    found = sorted(finder((picture + 1) * 127.5), key=lambda face: face.box[0])
    if not found:
        raise ValueError(
            f"{what}; expected a face of at least {SMALLEST} pixels that is not turned away, none "
            "was found (--aligned if the picture is one already, such as a drawn one)"
        )
    if most is not None and len(found) > most:
        raise ValueError(f"{what}; expected {most} face, there are {len(found)}: cut out one")
    front = [face for face in found if not face.is_profile]
    if not front:
        raise ValueError(
            f"{what}; expected a face from the front, the one that was found is a profile: its "
            "nose lies as far out as an eye"
        )
    return front
