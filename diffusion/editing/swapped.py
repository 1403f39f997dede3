"""Swapping faces of pictures from files: found, aligned, swapped, pasted back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.common.alignment import warped
from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import scaled
from diffusion.data.reading.decoding import read_whole
from diffusion.data.requests.given_pictures import try_read
from diffusion.networks.identity.face_finder import Face, FaceFinder
from diffusion.systems.swapping.paste_back import align, face_mask, paste_back
from diffusion.systems.swapping.swapper import Swapper

SMALLEST = 20  # pixels of the smallest face that is looked for
PARTS = 24  # and at least so large a part of the shorter side


class Swapping:
    """A `Swapper` from its checkpoint, for pictures of any size.

    Args:
        ckpt_path: The file, or an exported folder.
        encoder: Where its identity encoder is now; "" for where it was.
        root: Folder of the face finder's weights; None where pictures are aligned already.
        trust: Whether you made it, so that all the classes it names may be made.

    Attributes:
        mark: What the metadata of every result says.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is no swapper's.
    """

    def __init__(self, ckpt_path: str, encoder: str, root: str | None, trust: bool) -> None:
        given: dict[str, Any] = {"judge": None}
        if encoder:
            path = "diffusion.systems.frozen.TrainedIdentity"
            given["encoder"] = {"class_path": path, "init_args": {"checkpoint": encoder}}
        try:
            self.system = Swapper.load_from_checkpoint(
                ckpt_path, trust=trust, key="ckpt_path", **given
            )
        except FileNotFoundError as error:
            hint = "" if "ckpt_path" in str(error) else " (where it is now: --encoder)"
            raise FileNotFoundError(f"{error}{hint}") from None
        self.system.eval()
        self.finder = None if root is None else FaceFinder(root)
        self.size = self.system.network.image_size
        self.channels = self.system.network.in_channels
        digest = weights_digest(self.system.network.state_dict())
        self.mark = {
            "swap": "the identity of a face in this picture was swapped by a model",
            "model": f"Swapper {digest}, {Path(ckpt_path).expanduser()}",
        }

    @torch.no_grad()
    def __call__(self, source: str, target: str, face: int = 0) -> tuple[Tensor, str]:
        """Returns the target (3, H, W) in [−1, 1] with the source's identity, and what was swapped.

        Args:
            source: A picture of one face.
            target: A picture of one or several.
            face: Which of them, from the left, 1 for the first; 0 for all.

        Raises:
            FileNotFoundError: If there is no such picture.
            ValueError: If a face is missing, or there are several in the source.
        """
        a, b = (self._read(key, path) for key, path in (("source", source), ("target", target)))
        if self.finder is None:
            return self._whole(a, b), "the picture"
        (found,) = self.faces("source", source, a, most=1)
        identity, _ = align(a, found.points, self.size)
        every = self.faces("target", target, b)
        if not 0 <= face <= len(every):
            raise ValueError(f"face: {face}; expected 1 … {len(every)}, or 0 for all")
        chosen = every if face == 0 else every[face - 1 : face]
        for one in chosen:
            before, matrix = align(b, one.points, self.size)
            before = self._as_trained(before)
            after = self.system.swap(before, self._as_trained(identity))
            b = paste_back(b, before, after, matrix, face_mask(self.size))
        return b, f"{len(chosen)} face{'s' if len(chosen) > 1 else ''}"

    def _read(self, key: str, path: str) -> Tensor:
        return scaled(try_read(read_whole, key, Path(path).expanduser(), other=""))

    def _as_trained(self, x: Tensor) -> Tensor:
        """Returns pictures with as many channels as the model reads."""
        return x if self.channels == 3 else x.mean(1, keepdim=True)

    def faces(self, key: str, path: str, picture: Tensor, most: int | None = None) -> list[Face]:
        """Returns the faces of a picture, from left to right; see `find_faces`."""
        assert self.finder is not None
        return find_faces(self.finder, picture, f"{key}: {path}", most)

    def _whole(self, source: Tensor, target: Tensor) -> Tensor:
        """Returns a target that is one aligned face, with the source's identity."""
        matrices = [centre(x, self.size) for x in (source, target)]
        a, b = (
            self._as_trained(warped(x[None], m, (self.size, self.size)))
            for x, m in zip((source, target), matrices)
        )
        mask = torch.ones(1, self.size, self.size)
        return paste_back(target, b, self.system.swap(b, a), matrices[1], mask)


def find_faces(
    finder: FaceFinder, picture: Tensor, what: str, most: int | None = None
) -> list[Face]:
    """Returns the faces of a picture (3, H, W) in [−1, 1], from left to right.

    Args:
        finder: What finds them.
        picture: Where.
        what: The picture's key and path, for errors.
        most: How many there may be, or None.

    Raises:
        ValueError: If there is none, or are too many.
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
    return found


def centre(picture: Tensor, size: int) -> Tensor:
    """Returns what brings the middle square of a picture (3, H, W) to a size, (1, 2, 3)."""
    H, W = picture.shape[1:]
    s, side = size / min(H, W), min(H, W)
    left, top = (W - side) / 2, (H - side) / 2
    return torch.tensor([[[s, 0.0, -s * left], [0.0, s, -s * top]]], dtype=torch.float64)
