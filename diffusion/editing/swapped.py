"""Swapping faces of pictures from files: found, aligned, swapped, pasted back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.common import weights
from diffusion.common.alignment import warped
from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import scaled
from diffusion.data.identities.given_poses import POINTS, points_of
from diffusion.data.reading.decoding import read_whole
from diffusion.data.requests.given_pictures import try_read
from diffusion.editing.find_faces import find_faces
from diffusion.networks.identity.face_finder import FaceFinder
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.swapping.diffusion_swap import DiffusionSwap
from diffusion.systems.swapping.paste_back import aligned_face, face_mask, paste_back
from diffusion.systems.swapping.swapper import Swapper

# From a target, a source (1, C, H, W) and the target's five points to a swap and its mask.
Swap = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Swapping:
    """A `Swapper`, or a `Diffusion` with an `InstantID`, for pictures of any size.

    Args:
        ckpt_path: The checkpoint, or an exported folder.
        root: Folder of the face finder's weights.
        aligned: Whether pictures are as the model's data are, and no face is looked for.
        trust: Whether you made it, so that all the classes it names may be made.
        encoder: Where its identity encoder is now; "" for where it was.
        base: Where the base of an InstantID is now; "" for where it was.
        **drawing: Of `DiffusionSwap`.

    Attributes:
        mark: What the metadata of every result says.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is of another model, or one that does not read what is given.
    """

    def __init__(
        self,
        ckpt_path: str,
        root: str,
        aligned: bool = False,
        trust: bool = False,
        encoder: str = "",
        base: str = "",
        **drawing: Any,
    ) -> None:
        path = Path(ckpt_path).expanduser()
        system = restored(path, trust, encoder, base)
        if isinstance(system, Diffusion):
            self.swap: Swap = DiffusionSwap(system, **drawing)
            network: Any = system.denoiser.network
            kind, shape = type(network).__name__, system.shape
        elif isinstance(system, Swapper):
            if given := [name for name, value in {**drawing, "base": base}.items() if value]:
                raise ValueError(
                    f"{given[0]}: given; expected nothing, as a Swapper draws by no sampler"
                )
            kind, network = "Swapper", system.network
            shape = (network.in_channels, network.image_size, network.image_size)
            mask = torch.ones(1, 1, *shape[1:]) if aligned else face_mask(shape[-1])[None]
            self.swap = lambda target, source, _: (system.swap(target, source), mask)
        else:
            raise ValueError(
                f"ckpt_path: {path}; expected one of a Swapper or an InstantID, it is of "
                f"{type(system).__name__}"
            )
        self.finder = None if aligned else FaceFinder(root)
        self.root, self.channels, self.size = root, shape[0], shape[-1]
        self.mark = {
            "swap": "the identity of a face in this picture was swapped by a model",
            "model": f"{kind} {weights_digest(network.state_dict())}, {path}",
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
            ValueError: If a face is missing or a profile, or there are several in the source.
        """
        a, b = (self._read(key, path) for key, path in (("source", source), ("target", target)))
        if self.finder is None:
            (identity, _), (before, matrix) = self._whole(a), self._whole(b)
            points = torch.empty(5, 2)
            if isinstance(self.swap, DiffusionSwap):
                points = self.size * self._points(Path(target).expanduser())
            return self._pasted(b, before, matrix, identity, points), "the picture"
        (found,) = find_faces(self.finder, a, f"source: {source}", most=1)
        identity, _ = aligned_face(a, found.points, self.size)
        every = find_faces(self.finder, b, f"target: {target}")
        if not 0 <= face <= len(every):
            raise ValueError(f"face: {face}; expected 1 … {len(every)}, or 0 for all")
        chosen = every if face == 0 else every[face - 1 : face]
        for one in chosen:
            before, matrix = aligned_face(b, one.points, self.size)
            points = one.points.double() @ matrix[0, :, :2].T + matrix[0, :, 2]
            b = self._pasted(b, before, matrix, identity, points)
        return b, f"{len(chosen)} face{'s' if len(chosen) > 1 else ''}"

    def _pasted(
        self, picture: Tensor, before: Tensor, matrix: Tensor, source: Tensor, points: Tensor
    ) -> Tensor:
        before, source = (  # with as many channels as the model reads
            x if self.channels == 3 else x.mean(1, keepdim=True) for x in (before, source)
        )
        after, (mask,) = self.swap(before, source, points[None])
        return paste_back(picture, before, after, matrix, mask)

    def _read(self, key: str, path: str) -> Tensor:
        return scaled(try_read(read_whole, key, Path(path).expanduser(), other=""))

    def _whole(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the middle square of a picture as the model reads it, and what brought it."""
        matrix = middle_square(picture, self.size)
        return warped(picture[None], matrix, (self.size, self.size)), matrix

    def _points(self, target: Path) -> Tensor:
        """Returns the points of a target's middle square, shares of its side, (5, 2)."""
        finder = None if target.with_suffix(POINTS).is_file() else FaceFinder(self.root)
        return points_of(target, finder, "target")


def restored(path: Path, trust: bool, encoder: str, base: str) -> Restorable:
    """Returns the model of a checkpoint, without a judge.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is something else, or names no file where one has moved.
    """
    content = weights.read(path, "ckpt_path")
    about = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    about = about if isinstance(about, Mapping) else {}
    kind = str(about.get("_class_path", "")).rpartition(".")[2]
    moved = {
        _checkpoint(about, name): now for name, now in (("encoder", encoder), ("base", base)) if now
    }
    given: dict[str, Any] = {"judge": None} if kind == "Swapper" else {}
    try:
        return Restorable.load_from_checkpoint(
            path, trust=trust, key="ckpt_path", moved=moved, **given
        )
    except FileNotFoundError as error:
        why = str(error).split(" (where it is now")[0]
        raise FileNotFoundError(f"{why} (where it is now: --encoder, --base)") from None


def _checkpoint(settings: Mapping[str, Any], name: str) -> str:
    """Returns the file that settings name for a part."""
    nodes: list[Any] = [settings]
    for node in nodes:
        if isinstance(node, Mapping):
            nodes += node.values()
            part = node.get(name)
            made = part.get("init_args") if isinstance(part, Mapping) else None
            if isinstance(made, Mapping) and isinstance(file := made.get("checkpoint"), str):
                return file
    raise ValueError(f"{name}: given; expected nothing, as the checkpoint names no file for it")


def middle_square(picture: Tensor, size: int) -> Tensor:
    """Returns what brings the middle square of a picture (3, H, W) to a size, (1, 2, 3)."""
    H, W = picture.shape[1:]
    s, side = size / min(H, W), min(H, W)
    left, top = (W - side) / 2, (H - side) / 2
    return torch.tensor([[[s, 0.0, -s * left], [0.0, s, -s * top]]], dtype=torch.float64)
