"""Putting a swapped face back where it came from, under a soft mask."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.alignment import TEMPLATE, inverse, similarity, warped

MIDDLE, AXES = (0.49, 0.5), (0.38, 0.46)  # of the ellipse, as shares of an aligned picture
SOFT = 0.12  # over which share of the picture it fades


def face_mask(size: int, points: Tensor | None = None, grown: float = 1.0) -> Tensor:
    """Returns 1 on a face, 0 outside, smooth between, (1, size, size).

    Args:
        size: Height and width of the picture.
        points: Its five points in pixels, (5, 2); None where it is aligned.
        grown: How many times larger than a face's the ellipse is.
    """
    places = torch.arange(size) + 0.5
    y, x = torch.meshgrid(places, places, indexing="ij")
    if points is not None:
        (A,) = similarity(points[None].cpu(), size * torch.tensor(TEMPLATE)).float()
        x, y = (row[0] * x + row[1] * y + row[2] for row in A)
    x, y = x / size, y / size
    (a, b), (u, v) = (grown * axis for axis in AXES), MIDDLE
    radius = (((x - u) / a).square() + ((y - v) / b).square()).sqrt()
    way = ((1 - radius) * min(a, b) / SOFT).clamp(0, 1)
    return (way * way * (3 - 2 * way))[None]


def aligned_face(photograph: Tensor, points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns an aligned face, (1, C, size, size), and the similarity that brought it there.

    Args:
        photograph: (C, H, W), floats.
        points: Both eyes, the nose and both corners of the mouth, in pixels, (5, 2).
        size: Of the result.
    """
    matrix = similarity(points[None], size * torch.tensor(TEMPLATE))
    return warped(photograph[None], matrix, (size, size)), matrix


def paste_back(
    photograph: Tensor, before: Tensor, after: Tensor, matrix: Tensor, mask: Tensor
) -> Tensor:
    """Returns p + A⁻¹(m (after − before)): what has changed in an aligned face, under a mask m.

    So the photograph keeps its own resolution, and where nothing has changed, every pixel.

    Args:
        photograph: p, (C, H, W) in [−1, 1].
        before: The aligned face, (1, c, size, size).
        after: And what became of it.
        matrix: A, from pixels of the photograph to those of the face, (1, 2, 3).
        mask: m, (1, size, size).
    """
    H, W = photograph.shape[1:]
    change = F.pad(mask.to(after) * (after - before), (1, 1, 1, 1))  # 0 outside, not the edge again
    shift = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]]).to(matrix)
    return (photograph + warped(change, inverse(matrix) @ shift, (H, W))[0]).clamp(-1, 1)
