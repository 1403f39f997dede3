# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Keeping x̂_0 in the data's range (Imagen, section 2.3; https://arxiv.org/abs/2205.11487)."""

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.base import Guidance


class Static(Guidance):
    """x̂_0 ← clip(x̂_0, −1, 1), and ε̂ follows."""

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        pred = denoise(x_t, t, cond)
        return pred.with_x_0(pred.x_0.clamp(-1, 1))


class Dynamic(Guidance):
    """x̂_0 ← clip(x̂_0, −s, s) / s, with s a percentile of |x̂_0| in each image, at least 1.

    Args:
        percentile: Which, 0 … 1; Imagen uses 0.995.
        limit: The largest s, at least 1 (diffusers' sample_max_value); None for no limit.

    Raises:
        ValueError: If the percentile lies outside 0 … 1, or the limit is below 1.
    """

    def __init__(self, percentile: float = 0.995, limit: float | None = None) -> None:
        if not 0 <= percentile <= 1:
            raise ValueError(f"guidance.percentile: {percentile}; expected 0 … 1")
        if limit is not None and not limit >= 1:
            raise ValueError(f"guidance.limit: {limit}; expected at least 1, or null")
        self.percentile, self.limit = percentile, limit

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        pred = denoise(x_t, t, cond)
        size = pred.x_0.abs().flatten(1)
        # torch.quantile takes at most 2^24 numbers at once.
        rows = size.split(max(1, 2**24 // size.shape[1]))
        s = torch.cat([part.quantile(self.percentile, dim=1) for part in rows])
        s = s.clamp(min=1, max=self.limit)
        s = s.reshape(-1, *[1] * (x_t.ndim - 1))
        return pred.with_x_0(pred.x_0.clamp(-s, s) / s)
