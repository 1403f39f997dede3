"""ArcFace's loss (Deng et al. 2019, arXiv 1801.07698)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 1e-6  # of 1 − cos² θ, whose root has no slope at 0


class AngularMargin(nn.Module):
    """L = −log e^{s cos(θ_y + m)} / (e^{s cos(θ_y + m)} + Σ_{j ≠ y} e^{s cos θ_j}) (eq. 3).

    θ_j is the angle between an embedding and the centre W_j of person j. Where θ_y + m is more than
    π, cos would rise again; there it is cos θ_y − m sin m, as in the authors' code.

    Args:
        persons: K, how many there are to train on.
        width: D of the embeddings.
        scale: s.
        margin: m in radians.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, persons: int, width: int, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__()
        if not (scale > 0 and 0 <= margin < math.pi / 2):
            raise ValueError(
                f"model.margin: {margin} with model.scale {scale}; expected 0 ≤ margin < π / 2 and "
                "a scale above 0"
            )
        self.scale, self.margin = scale, margin
        self.centres = nn.Parameter(0.01 * torch.randn(persons, width))

    def forward(self, embeddings: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the losses, and whether the right centre was the nearest, each (B,).

        Args:
            embeddings: Of any length, (B, D).
            person: Numbers 0 … K − 1, (B,).
        """
        cos = F.normalize(embeddings.float(), dim=1) @ F.normalize(self.centres, dim=1).T
        right = cos.gather(1, person[:, None])
        sin = (1 - right.square()).clamp(min=SMALLEST).sqrt()
        m = self.margin
        moved = right * math.cos(m) - sin * math.sin(m)
        moved = torch.where(right > -math.cos(m), moved, right - m * math.sin(m))
        logits = self.scale * cos.scatter(1, person[:, None], moved)
        losses = F.cross_entropy(logits, person, reduction="none")
        return losses, cos.argmax(1) == person
