"""Bringing faces to the same place: the similarity of five points, and pictures under it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Where dlib's chips have both eyes, the nose and both corners of the mouth, as shares of the
# picture: means over 21 chips of what MTCNN finds there, made symmetric.
TEMPLATE = ((0.297, 0.27), (0.685, 0.27), (0.491, 0.475), (0.32, 0.658), (0.662, 0.658))


@dataclass(frozen=True)
class Face:
    """A face in a photograph.

    Attributes:
        box: Left, upper, right and lower edge in pixels.
        points: Both eyes, the nose and both corners of the mouth, x and y in pixels, what is on the
            left in the picture first, (5, 2).
        score: p(face).
    """

    box: tuple[float, float, float, float]
    points: Tensor
    score: float

    @property
    def is_profile(self) -> bool:
        """Whether the nose is as far out as an eye, or nearly: by a tenth of the eyes' distance."""
        left, right, nose = self.points[:3].double()
        along = right - left
        return abs(((nose - left) @ along / along.square().sum()).item() - 0.5) > 0.4


class Finder(ABC):
    """Finds faces in pictures."""

    @abstractmethod
    def __call__(self, image: Tensor) -> list[Face]:
        """Returns the faces of a picture, the surest first.

        Args:
            image: Levels 0 … 255, (1 or 3, H, W), of any type.
        """


def similarity(points: Tensor, wanted: Tensor) -> Tensor:
    """Returns the similarities (B, 2, 3) nearest to points ↦ wanted in least squares, float64.

    x ↦ s R x + t with the rotation R of U D Vᵀ, the singular value decomposition of the covariance
    (Umeyama 1991, IEEE TPAMI 13(4), eqs. 40 to 42); nothing is mirrored.

    Args:
        points: (B, n, 2).
        wanted: (n, 2) or (B, n, 2).
    """
    points, wanted = points.double(), wanted.double().expand(points.shape)
    middle, aim = points.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    a, b = points - middle, wanted - aim
    U, d, Vt = torch.linalg.svd(b.transpose(1, 2) @ a)
    sign = torch.ones_like(d)
    sign[:, 1] = torch.det(U @ Vt).sign()
    turn = U @ (sign[..., None] * Vt)
    scale = (d * sign).sum(1) / a.square().sum((1, 2))
    turn = scale[:, None, None] * turn
    return torch.cat([turn, (aim - middle @ turn.transpose(1, 2)).transpose(1, 2)], 2)


def inverse(matrix: Tensor) -> Tensor:
    """Returns the inverses of x ↦ A x + t, (B, 2, 3)."""
    back = torch.linalg.inv(matrix[..., :2])
    return torch.cat([back, -back @ matrix[..., 2:]], -1)


def warped(image: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns pictures moved by x ↦ A x + t of their pixels, bilinear, (B, C, H, W).

    Pixel (i, j) has its middle at x = (j + ½, i + ½). What lies outside is the nearest edge. Where
    a picture becomes smaller, a pixel is the mean of as many samples a side as it is wide.

    Args:
        image: (B, C, h, w), floats.
        matrix: (B, 2, 3).
        size: H and W.
    """
    (H, W), (h, w) = size, image.shape[2:]
    back = inverse(matrix.double())
    shrink = back[:, :, :2].det().abs().sqrt().max().item()
    n = max(1, min(8, round(shrink)))  # samples along each side of a pixel
    y, x = (
        (torch.arange(n * side, dtype=torch.float64, device=image.device) + 0.5) / n
        for side in (H, W)
    )
    grid = torch.stack((*torch.meshgrid(x, y, indexing="xy"), torch.ones(n * H, n * W)), -1)
    places = torch.einsum("bij,hwj->bhwi", back, grid.to(back))
    places = 2 * places / torch.tensor([w, h], dtype=torch.float64, device=image.device) - 1
    found = F.grid_sample(image, places.to(image.dtype), padding_mode="border", align_corners=False)
    return F.avg_pool2d(found, n)
