# pyright: strict
"""Inpainting by a model that was not trained for it: what is known replaces what is estimated."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.base import Guidance


class Inpaint(Guidance):
    """x̂_0 ← m · known + (1 − m) · x̂_0, and ε̂ follows.

    The conditions are "known", images in [−1, 1], and "mask", m: 1 where they are known, 0 where
    something is to be drawn, (B, 1, H, W). Where m = 1 every `Step` then walks from x_T to the
    known pixels with exactly the marginals q(x_t | known), whatever its variance is elsewhere (see
    `Prediction.known`), and the estimate for the other pixels sees them through x_t. `Heun` with
    s_noise ≠ 1 is the exception: it adds more or less noise than the process has. So this is the
    replacement method (Song et al. 2021, appendix I.2; https://arxiv.org/abs/2011.13456), written
    as GLIDE's code does.

    It is not exact: the known pixels are seen with the noise of time t, also where they decide
    what has to be drawn, and more steps do not mend that. The step `RePaint` does, at the price of
    more evaluations. An `Inpainter` network sees them without noise; with it, this guidance makes
    sure that they come out as they were.

    It belongs at the end of the list, so that no threshold moves what is known.
    """

    needs: ClassVar[tuple[str, ...]] = ("known", "mask")

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`.

        Raises:
            ValueError: If it is called without one of the conditions.
        """
        for key in self.needs:
            if key not in cond.values:
                raise self.lacks(f"the condition '{key}'", "data.edit and data.mask")
        pred = denoise(x_t, t, cond)
        known, mask = cond.values["known"].to(pred.x_0), cond.values["mask"] > 0.5
        return replace(pred, x_0=torch.where(mask, known, pred.x_0), known=mask)
