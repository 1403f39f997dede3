# pyright: strict
"""Guidance by the gradient of a score (Dhariwal & Nichol 2021; https://arxiv.org/abs/2105.05233).

The score function of p(x_t | c) is that of p(x_t) plus ∇ log p(c | x_t), and −ε̂ / σ_t estimates
it. So for any score S(x_t, t, c) that stands for log p(c | x_t) up to a constant

    ε̂ ← ε̂ − s σ_t ∇_{x_t} S     (eq. 14; algorithm 2)
    x̂_0 ← x̂_0 + s (σ_t² / α_t) ∇_{x_t} S

which are the same line, as x_t = α_t x̂_0 + σ_t ε̂. Under the ancestral step to x_u it shifts the
mean of p(x_u | x_t) by s (α_u / α_t) σ²_{t|u} ∇ S: for u = t − 1 that is algorithm 1's shift
s Σ ∇ S with Σ = β_t ("large"), times 1 / √(1 − β_t). With few steps of `Cosine` that factor is
large where α_t is small; `ClassifierMean` is algorithm 1 itself. The gradient is taken at x_t, as
in the authors' code; the derivation of section 4.1 has it at the mean of x_u.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.base import Scaled
from diffusion.process import Process

Score = Callable[[Tensor, Tensor, Condition], Tensor]


class Gradient(Scaled):
    """x̂_0 ← x̂_0 + s (σ_t² / α_t) ∇_{x_t} S, where α_t > 0 and t lies in the interval.

    Where α_t = 0 nothing of x_0 is left in x_t to be scored. A learned variance stays as it is.

    Args:
        scale: s; 0 is off.
        follows: The module that scores.
        interval: As for `Scaled`; at other times it costs nothing.

    Raises:
        ValueError: If the scale is not finite or the interval is empty.
    """

    def __init__(
        self, scale: float, follows: nn.Module, interval: tuple[int, int] | None = None
    ) -> None:
        super().__init__(scale, interval)
        self._follows = follows

    def guided(self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Guidance`."""
        applies = self.applies(t)
        if self.scale == 0 or (t.ndim == 0 and not applies):
            return denoise(x_t, t, cond)
        self.follow(x_t)
        pred, gradient = self.evaluate(denoise, x_t, t, cond)
        on = applies.reshape(pred.alpha.shape) & (pred.alpha > 0)
        weight = torch.where(on, self.weight(pred, t), 0.0)
        return pred.with_x_0(pred.x_0 + self.scale * weight * gradient)

    @property
    def networks(self) -> Sequence[nn.Module]:
        """See `Guidance`."""
        return (self._follows,)

    def weight(self, pred: Prediction, t: Tensor) -> Tensor:
        """Returns the gradient's weight in x̂_0 at scale 1, broadcastable against x_t."""
        return pred.sigma**2 / pred.alpha

    @abstractmethod
    def evaluate(
        self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition
    ) -> tuple[Prediction, Tensor]:
        """Returns the prediction before guidance, and ∇_{x_t} Σ_b S_b with x_t's shape and dtype.

        Of the sum over the batch, so that a sample does not depend on its neighbours. The module
        that scores is where x_t is.
        """


@contextmanager
def recording(device: torch.device) -> Generator[None]:
    """Enables gradients inside any outer mode: inference mode, `no_grad`, autocast.

    Autocast keeps copies of weights, which in inference mode cannot take part in a gradient; so
    it makes new ones here.
    """
    kind = device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    again = torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), again:
        yield


def copied(cond: Condition) -> Condition:
    """Returns copies: what was made in inference mode cannot take part in a gradient."""
    return Condition({k: v.clone() for k, v in cond.values.items()}, cond.null)


def gradient_of(score: Score, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
    """Returns ∇_x Σ_b S(x_b, t_b, c_b), x's shape and dtype, in float32 at least.

    Args:
        score: (x, t, condition) → (B,).
        x: Shape (B, ...).
        t: Shape (B,) or ().
        cond: What x is scored against.
    """
    with recording(x.device), torch.autocast(x.device.type, enabled=False):
        copy = x.detach().clone().to(torch.promote_types(x.dtype, torch.float32))
        total = score(copy.requires_grad_(), t.clone(), copied(cond)).sum()
        (gradient,) = torch.autograd.grad(total, copy)
    return gradient.to(x.dtype)


def check_process(key: str, trained: Process, wanted: Process) -> None:
    """Refuses what was trained with another process, and says in words where the two differ.

    Args:
        key: What errors call it.
        trained: The process it was trained with.
        wanted: The model's.

    Raises:
        ValueError: If they differ.
    """
    message = f"{key}: it was trained with"
    if trained.T != wanted.T:
        raise ValueError(f"{message} T = {trained.T}; expected the model's process, T = {wanted.T}")
    tables = ("α", trained.alpha, wanted.alpha), ("σ", trained.sigma, wanted.sigma)
    for name, here, there in tables:
        t = int((here - there).abs().argmax())
        if (here[t] - there[t]).abs() > 1e-6:
            raise ValueError(
                f"{message} {name} = {here[t]:.4g} at t = {t}; expected the model's process, "
                f"{name} = {there[t]:.4g}"
            )
