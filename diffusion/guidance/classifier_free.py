# pyright: strict
"""Classifier-free guidance (Ho & Salimans 2022; https://arxiv.org/abs/2207.12598)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from diffusion.condition import Condition, named_after
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.base import Scaled


class ClassifierFree(Scaled):
    """x̂_0 = x̂_0(∅) + s (x̂_0(c) − x̂_0(∅)), both from one batch of 2B (eq. 6 with s = 1 + w).

    The same line holds for ε̂ and v, which are linear in x̂_0. A learned variance is not guided: the
    conditional one is kept (GLIDE's code).

    Args:
        scale: s: 0 is unconditional, 1 conditional, each in one pass of B; more is guided. The
            paper's w is s − 1.
        drop: The names of the conditions that ∅ replaces, such as [text]; by default all that have
            a null value.
        interval: As for `Scaled`; at other times s is 1, at the price of one pass (Kynkäänniemi
            et al. 2024).
        rescale: φ: how far the guided x̂_0 is pulled back to the standard deviation of the
            conditional one, 0 … 1 (Lin et al. 2023, eq. 15 and 16).

    Raises:
        ValueError: If the scale is not finite, φ lies outside 0 … 1, or the interval is empty.
    """

    def __init__(
        self,
        scale: float,
        drop: Sequence[str] | None = None,
        interval: tuple[int, int] | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(scale, interval)
        if not 0 <= rescale <= 1:
            raise ValueError(f"guidance.rescale: {rescale}; expected 0 … 1")
        self.drop, self.rescale = drop, rescale

    def forgets(self, null: Iterable[str]) -> list[str]:
        """See `Guidance`."""
        null = list(null)
        if self.scale == 1:
            return []
        if self.drop is None and null:
            return null
        for name in self.drop or ["everything"]:
            if not named_after(name, null):
                raise ValueError(
                    f"guidance.drop: {name}; expected a network with a ∅ for it, this one has "
                    f"{null or 'nothing to forget'}"
                )
        return [key for name in self.drop or () for key in named_after(name, null)]

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        applies = self.applies(t)
        if self.scale == 1 or (t.ndim == 0 and not applies):
            return denoise(x_t, t, cond)
        if self.scale == 0 and not self.interval and not self.rescale:
            return denoise(x_t, t, cond.drop(keys=self.drop))
        both = denoise(
            torch.cat([x_t, x_t]),
            t if t.ndim == 0 else torch.cat([t, t]),
            cond.cat(cond.drop(keys=self.drop)),
        )
        conditional, null = both.x_0.chunk(2)
        inside = torch.where(applies, self.scale, 1.0).to(x_t.dtype)
        scale = inside.reshape(-1, *[1] * (x_t.ndim - 1)) if t.ndim else inside
        x_0 = null + scale * (conditional - null)
        if self.rescale:
            axes = tuple(range(1, x_0.ndim))
            ratio = conditional.std(axes, keepdim=True) / x_0.std(axes, keepdim=True)
            x_0 = self.rescale * (x_0 * ratio) + (1 - self.rescale) * x_0
        return _first_half(both, x_t).with_x_0(x_0)


def _first_half(both: Prediction, x_t: Tensor) -> Prediction:
    """Returns the conditional half of a prediction for a doubled batch."""
    n = len(x_t)
    alpha, sigma = (x if x.ndim == 0 else x[:n] for x in (both.alpha, both.sigma))
    v, known = (x if x is None or x.ndim == 0 else x[:n] for x in (both.v, both.known))
    return Prediction(x_t, both.x_0[:n], alpha, sigma, v, known)
