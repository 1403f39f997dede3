"""What the modules that guide others have in common: they judge pictures, and draw none."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.noise import seed
from diffusion.training.checks import check_stage
from diffusion.training.trainable import Trainable

DATA = "data"  # what a checkpoint calls the description of what it was trained on


class Guide(Trainable):
    """A module that draws no samples, and whose checkpoint says what it was trained on.

    Attributes:
        data: See `describe`; None until there is a data module.
    """

    data: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Refuses data that does not fit, before anything is trained."""
        if stage == "predict":
            raise ValueError(
                f"predict: a {type(self).__name__} draws no samples; expected `diffusion test`, or "
                "a diffusion model that it guides"
            )
        data = getattr(self.trainer, "datamodule", None)
        check_stage(self.trainer, data, stage)
        if data is not None:
            self.check(data)
            self.data = describe(data)

    def check(self, data: Any) -> None:
        """Refuses data that does not fit.

        Raises:
            ValueError: If it does not.
        """
        raise NotImplementedError

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        """Never called: `setup` refuses to predict, once Lightning has seen this method."""
        raise NotImplementedError

    def number(self, batch_idx: int) -> int:
        """Returns the number of an evaluation's batch over all processes."""
        return batch_idx * self.trainer.world_size + self.global_rank

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says what it was trained on, too."""
        super().on_save_checkpoint(checkpoint)
        if self.data is not None:
            checkpoint[DATA] = self.data


def describe(data: Any) -> dict[str, Any]:
    """Returns what tells one data set from another: name, shape, number and names of classes."""
    return {
        "name": type(data).__name__,
        "shape": list(data.shape),
        "num_classes": data.num_classes,
        "classes": list(getattr(data, "classes", None) or []),
    }


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
