# pyright: strict, reportUnnecessaryIsInstance=false
"""Guidance by a worse version of the model (Karras et al. 2024; https://arxiv.org/abs/2406.02507)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, FrozenDenoiser, Prediction
from diffusion.guidance.base import Scaled
from diffusion.guidance.gradient import check_process
from diffusion.process import Process
from diffusion.spec import DataSpec


class Autoguidance(Scaled):
    """x̂_0 = x̂_0^bad + w (x̂_0^good − x̂_0^bad), from a pass of each network (section 3).

    The bad model is of the same kind and data, but smaller or trained for a shorter time, and sees
    the same conditions: it errs where the good one errs, only further, so that the difference
    points away from their errors and not away from other classes. The same line holds for ε̂ and v.
    A learned variance is the good model's.

    The order in `sampler.guidance` matters. In [Autoguidance, ClassifierFree] each half of
    classifier-free guidance is autoguided, with and without conditions, so the bad model must know
    ∅, too: two passes of 2B. In [ClassifierFree, Autoguidance] the good model alone is guided, and
    taken from it is the bad model with conditions: a pass of 2B and one of B.

    Args:
        scale: w: 0 is the bad model, 1 the good one, which costs no other pass; more is guided.
        bad: The other model, such as `TrainedDenoiser` with its checkpoint.
        interval: As for `Scaled`; at other times w is 1.

    Raises:
        ValueError: If the scale is not finite, the interval is empty, or the other model is none.
    """

    def __init__(
        self, scale: float, bad: FrozenDenoiser, interval: tuple[int, int] | None = None
    ) -> None:
        super().__init__(scale, interval)
        if not isinstance(bad, FrozenDenoiser):
            raise ValueError(
                f"guidance.bad: {type(bad).__name__}; expected a FrozenDenoiser, such as "
                "TrainedDenoiser with the checkpoint of a diffusion model"
            )
        self.bad = bad

    @property
    def networks(self) -> Sequence[nn.Module]:
        """See `Guidance`."""
        return (self.bad,)

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Guidance`; also that both models were trained on the same data."""
        check_process("guidance.bad", self.bad.denoiser.process, process)
        if found := self.bad.spec.difference(data):
            raise ValueError(
                f"guidance.bad: it was trained on {found[0]}; expected {found[1]}, as in "
                f"{data.name}"
            )

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        applies, good = self.applies(t), denoise(x_t, t, cond)
        if self.scale == 1 or (t.ndim == 0 and not applies):
            return good
        self.follow(x_t)
        bad = self.bad(x_t, t, cond).x_0
        inside = torch.where(applies, self.scale, 1.0).to(x_t.dtype)
        scale = inside.reshape(-1, *[1] * (x_t.ndim - 1)) if t.ndim else inside
        return good.with_x_0(bad + scale * (good.x_0 - bad))
