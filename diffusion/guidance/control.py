# pyright: strict
"""How strongly a control, or a picture, is obeyed, and when (ControlNet, IP-Adapter)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.base import Scaled

GUESS = 0.825


class ControlStrength(Scaled):
    """Residual i of 0 … n is added s r^(12 (1 − i/n)) times, r = 1; see `ControlNet`.

    Guess mode (the authors' code) has r = 0.825, which with the paper's n = 12 is 0.825^(12−i), and
    no control at all in the unconditional half of `ClassifierFree`.

    At s = 0, and at times outside the interval, the control is not looked at: the network is its
    base, at the base's price, but for a decoder that was trained too (`unlocked`). It belongs
    behind `ClassifierFree` in the list, and one for each control is enough.

    Args:
        name: The condition.
        scale: s; 1 is what was trained.
        interval: As for `Scaled`; at other times s is 0.
        guess: Whether r is 0.825, and the control in the conditional pass only.

    Raises:
        ValueError: If the scale is not finite or the interval is empty.
    """

    def __init__(
        self,
        name: str,
        scale: float = 1.0,
        interval: tuple[int, int] | None = None,
        guess: bool = False,
    ) -> None:
        super().__init__(scale, interval)
        self.name, self.guess = name, guess

    @property
    def hands_on(self) -> Sequence[str]:
        """See `Guidance`."""
        return (f"{self.name}_strength",)

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        applies, (key,) = self.applies(t), self.hands_on
        values, null, always = dict(cond.values), dict(cond.null), cond.always
        if self.scale == 0 or (t.ndim == 0 and not applies):
            values.pop(self.name, None)
            values[key] = x_t.new_zeros(len(x_t), 2)
            return denoise(x_t, t, Condition(values, null, always))
        r = GUESS if self.guess else 1.0
        values[key] = _pair(self.scale, r, x_t).repeat(len(x_t), 1)
        if t.ndim:
            values[key] = values[key] * applies.to(x_t)[:, None]
        if self.guess:
            null[key], always = _pair(0.0, 1.0, x_t), always | {key}
        return denoise(x_t, t, Condition(values, null, always))


class ImageStrength(Scaled):
    """λ of an `IPAdapter`: what its tokens add to attention is multiplied by it (eq. 6).

    At λ = 0, and at times outside the interval, the network is its base, but for an `IdentityNet`.

    Args:
        name: The condition.
        scale: λ; 1 is what was trained.
        interval: As for `Scaled`; at other times λ is 0.

    Raises:
        ValueError: If the scale is not finite or the interval is empty.
    """

    def __init__(
        self, name: str = "identity", scale: float = 1.0, interval: tuple[int, int] | None = None
    ) -> None:
        super().__init__(scale, interval)
        self.name = name

    @property
    def hands_on(self) -> Sequence[str]:
        """See `Guidance`."""
        return (f"{self.name}_strength",)

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        applies = self.applies(t)
        if t.ndim:
            strength = self.scale * applies[:, None].to(x_t)
        else:  # known here, without a copy from the CPU
            strength = x_t.new_full((len(x_t), 1), self.scale if applies else 0.0)
        values = {**cond.values, self.hands_on[0]: strength}
        return denoise(x_t, t, Condition(values, cond.null, cond.always))


def _pair(s: float, r: float, like: Tensor) -> Tensor:
    """Returns (s, r) where another tensor is, without a copy from the CPU."""
    return torch.stack([like.new_full((), s), like.new_full((), r)])
