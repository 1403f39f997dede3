"""What the modules that guide others have in common: they judge pictures, and draw none."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.noise import seed
from diffusion.systems.base import Trainable
from diffusion.systems.checks import check_stage


class Guide(Trainable):
    """A module that draws no samples."""

    def setup(self, stage: str) -> None:
        """Refuses data that does not fit, before anything is trained."""
        if stage == "predict":
            raise ValueError(
                f"predict: a {type(self).__name__} draws no samples; expected `diffusion test`, or "
                "a diffusion model that it guides"
            )
        check_stage(self.trainer, getattr(self.trainer, "datamodule", None), stage)
        super().setup(stage)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        """Never called: `setup` refuses to predict, once Lightning has seen this method."""
        raise NotImplementedError

    def number(self, batch_idx: int) -> int:
        """Returns the number of an evaluation's batch over all processes."""
        return batch_idx * self.trainer.world_size + self.global_rank


def random_crop(x: Tensor, margin: int) -> Tensor:
    """Returns images (B, C, H, W), mirrored at their edges, moved by −margin … margin pixels."""
    B, _, H, W = x.shape
    padded = F.pad(x, (margin,) * 4, mode="reflect")
    top, left = torch.randint(2 * margin + 1, (2, B, 1), device=x.device)
    rows = (top + torch.arange(H, device=x.device))[:, :, None]
    columns = (left + torch.arange(W, device=x.device))[:, None, :]
    sample = torch.arange(B, device=x.device)[:, None, None]
    return padded[sample, :, rows, columns].movedim(-1, 1)


def fixed_noise(x: Tensor, *key: int) -> Tensor:
    """Returns standard normal noise of x's shape that depends on the key alone."""
    generator = torch.Generator().manual_seed(seed(*key))
    return torch.randn(x.shape, generator=generator).to(x)
