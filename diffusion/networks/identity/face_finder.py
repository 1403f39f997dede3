"""Faces in a photograph: MTCNN's cascade (Zhang et al. 2016, arXiv 1604.02878, section II)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.alignment import Face, Finder
from diffusion.networks.identity.mtcnn import load_mtcnn

CELL, STRIDE = 12, 2  # what the first network sees, and how far apart
FACTOR = 0.709  # from one size of the picture to the next: half the area
LEAST = (0.6, 0.7, 0.7)  # p(face) that a box needs to go on, in each stage


class FaceFinder(Finder):
    """Finds faces that are not turned away, from `smallest` pixels on.

    Args:
        root: Folder for the package of the weights, fetched into it if it is not there.
        smallest: Side of the smallest face.

    Raises:
        FileNotFoundError: If the package cannot be had; names the command that fetches it.
    """

    def __init__(self, root: str = "data", smallest: int = 20) -> None:
        self.nets, self.smallest = load_mtcnn(Path(root).expanduser()), smallest

    @torch.no_grad()
    def __call__(self, image: Tensor) -> list[Face]:
        """Returns the faces of a picture, the surest first.

        Args:
            image: Levels 0 … 255, (1 or 3, H, W), of any type.
        """
        x = image.expand(3, -1, -1)[None].float()
        boxes = self._proposed(x)
        _, refine, output = self.nets
        if len(boxes):
            score, move = refine(crops(x, boxes, 24))
            kept = (score > LEAST[1]).nonzero()[:, 0]
            kept = kept[surest(boxes[kept], score[kept], 0.7)]
            boxes = square_boxes(moved_edges(boxes[kept], move[kept]))
        if not len(boxes):
            return []
        score, move, inside = output(crops(x, boxes, 48))
        size = boxes[:, 2:] - boxes[:, :2] + 1
        points = boxes[:, None, :2] + inside * size[:, None] - 0.5
        boxes, kept = moved_edges(boxes, move), score > LEAST[2]
        boxes, score, points = boxes[kept], score[kept], points[kept]
        found = surest(boxes, score, 0.7, of_smaller=True).tolist()
        return [Face(tuple(boxes[i].tolist()), points[i], score[i].item()) for i in found]

    def _proposed(self, x: Tensor) -> Tensor:
        """Returns what the first network takes for faces, at all sizes of the picture, (N, 4)."""
        height, width = x.shape[2:]
        scale, boxes, scores = CELL / self.smallest, list[Tensor](), list[Tensor]()
        while min(height, width) * scale >= CELL:
            small = F.interpolate(x, (int(height * scale + 1), int(width * scale + 1)), mode="area")
            score, move = self.nets[0](centred_levels(small))
            row, column = (score[0] > LEAST[0]).nonzero().unbind(1)
            corner = STRIDE * torch.stack([column, row], 1)
            box = torch.cat([((corner + 1) / scale).floor(), ((corner + CELL) / scale).floor()], 1)
            kept = surest(box, score[0, row, column], 0.5)
            boxes.append(torch.cat([box, move[0, :, row, column].T], 1)[kept])
            scores.append(score[0, row, column][kept])
            scale *= FACTOR
        if not boxes:
            return torch.empty(0, 4)
        found = torch.cat(boxes)[surest(torch.cat(boxes)[:, :4], torch.cat(scores), 0.7)]
        sides = (found[:, 2:4] - found[:, :2]).repeat(1, 2)
        return square_boxes(found[:, :4] + found[:, 4:] * sides)


def centred_levels(x: Tensor) -> Tensor:
    """Returns (v − 127.5) / 128 of levels v."""
    return (x - 127.5) / 128


def crops(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Returns what is in boxes, as far as it is in the picture, (N, 3, size, size)."""
    height, width = x.shape[2:]
    found = []
    for left, top, right, bottom in boxes.trunc().long().tolist():
        inside = x[
            :, :, max(top - 1, 0) : min(bottom, height), max(left - 1, 0) : min(right, width)
        ]
        found.append(F.interpolate(inside, (size, size), mode="area"))
    return centred_levels(torch.cat(found))


def moved_edges(boxes: Tensor, move: Tensor) -> Tensor:
    """Returns boxes whose edges are moved by shares of their sides, (N, 4)."""
    return boxes + move * (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)


def square_boxes(boxes: Tensor) -> Tensor:
    """Returns squares about the same middles, as large as the longer sides, (N, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(1, keepdim=True)
    corner = boxes[:, :2] + (sides - longer) / 2
    return torch.cat([corner, corner + longer], 1)


def surest(boxes: Tensor, scores: Tensor, most: float, of_smaller: bool = False) -> Tensor:
    """Returns which boxes stay, the surest first, when those that overlap a surer one go.

    Args:
        boxes: In pixels, (N, 4).
        scores: (N,).
        most: How much of their union two may share.
        of_smaller: Of the smaller one instead.
    """
    corner, end = boxes[:, :2], boxes[:, 2:]
    area = (end - corner).prod(1)
    order, kept = scores.argsort(descending=True), list[int]()
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        upper = torch.minimum(end[best], end[order])
        shared = (upper - torch.maximum(corner[best], corner[order])).clamp(min=0).prod(1)
        whole = area[best] + area[order] - shared
        whole = torch.minimum(area[best], area[order]) if of_smaller else whole
        order = order[shared / whole <= most]
    return torch.tensor(kept, dtype=torch.int64)
