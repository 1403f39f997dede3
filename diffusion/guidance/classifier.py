"""Guidance by a classifier of noisy images (Dhariwal & Nichol 2021; https://arxiv.org/abs/2105.05233).

The score of p(x_t | y) is that of p(x_t) plus ∇ log p(y | x_t), and a score is −ε̂ / σ_t. So

    ε̂ ← ε̂ − s σ_t ∇_{x_t} log p(y | x_t, t)     (eq. 14; algorithm 2)
    x̂_0 ← x̂_0 + s (σ_t² / α_t) ∇_{x_t} log p(y | x_t, t)

which are the same line, as x_t = α_t x̂_0 + σ_t ε̂. Under the ancestral step to x_u it shifts the
mean of p(x_u | x_t) by s (α_u / α_t) σ²_{t|u} ∇ log p: for u = t − 1 that is algorithm 1's shift
s Σ ∇ log p with Σ = β_t ("large"), times 1 / √(1 − β_t). The gradient is taken at x_t, as in the
authors' code; the derivation of section 4.1 has it at the mean of x_u.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance import Guidance
from diffusion.process import Process


class NoiseAware(nn.Module, ABC):
    """Scores noisy samples against a condition: log p(condition | x_t, t) up to a constant.

    Args:
        process: The forward process that made the x_t it was trained on.
        shape: One sample's shape, such as (C, H, W).
        num_classes: K, if the condition is a label.
        classes: The names of the classes, if they have some.
        data: The name of the data that it was trained on.
    """

    def __init__(
        self,
        process: Process,
        shape: Sequence[int],
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        data: str | None = None,
    ) -> None:
        super().__init__()
        self.process, self.shape = process, tuple(shape)
        self.num_classes, self.classes, self.data = num_classes, classes, data

    @abstractmethod
    def log_prob(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Returns log p(condition | x_t, t), shape (B,), through which x_t gets a gradient.

        Each sample's is its own: it does not depend on the rest of the batch. Where a sample's
        condition is ∅ there is nothing to be guided to, and the gradient is 0.

        Args:
            x_t: Shape (B, ...).
            t: Times in 1 … T, shape (B,) on x_t's device, or () on the CPU.
            cond: What to score x_t against.
        """

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """See `log_prob`; called like this, hooks can count the evaluations."""
        return self.log_prob(x_t, t, cond)


class Classifier(Guidance):
    """x̂_0 ← x̂_0 + s (σ_t² / α_t) ∇ log p(y | x_t, t), that is ε̂ ← ε̂ − s σ_t ∇ log p (eq. 14).

    The gradient is of the sum over the batch, so that a sample's guidance does not depend on its
    neighbours. It is taken in float32 at least and does not flow into the denoiser; a learned
    variance stays as it is. Where α_t = 0 nothing of x_0 is left in x_t to be classified: no
    guidance there.

    The order in `sampler.guidance` matters. [Static, Classifier] is the authors' code: x̂_0 is
    clipped, then guided, and not clipped again. [Classifier, Static] clips what was guided, which
    keeps σ_t² / α_t in check where α_t is small, as at the end of `Cosine`. In a list
    [Classifier, ClassifierFree] the half without label is not guided.

    Args:
        scale: s; 0 is off. With exact p and the unconditional denoiser, 1 gives p(x_0 | y).
        classifier: Trained on x_t of the same process.
        interval: The times (first, last) between which it applies, ends included; elsewhere it
            costs nothing.

    Raises:
        ValueError: If the scale is not finite, the interval is empty, or the classifier is
            something else.
    """

    needs: ClassVar[tuple[str, ...]] = ("label",)

    def __init__(
        self, scale: float, classifier: NoiseAware, interval: tuple[int, int] | None = None
    ) -> None:
        if not abs(scale) < float("inf"):
            raise ValueError(f"guidance.scale: {scale}; expected a finite number")
        if interval is not None and interval[0] > interval[1]:
            raise ValueError(f"guidance.interval: {interval}; expected first ≤ last")
        if not isinstance(classifier, NoiseAware):
            raise ValueError(
                f"guidance.classifier: {type(classifier).__name__}; expected a NoiseAware module, "
                "such as Trained with the checkpoint of a NoisyClassifier"
            )
        self.scale, self.classifier, self.interval = scale, classifier, interval
        self._device: torch.device | None = None

    def __call__(self, denoise: Denoiser) -> Denoiser:
        """See `Guidance`."""

        def guided(x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
            pred = denoise(x_t, t, cond)
            first, last = self.interval or (-torch.inf, torch.inf)
            if self.scale == 0 or (t.ndim == 0 and not first <= t <= last):
                return pred
            on = ((t >= first) & (t <= last)).reshape(pred.alpha.shape) & (pred.alpha > 0)
            weight = torch.where(on, self.scale * pred.sigma**2 / pred.alpha, 0.0)
            return pred.with_x_0(pred.x_0 + weight * self.gradient(x_t, t, cond))

        return guided

    def gradient(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Returns ∇_{x_t} Σ_b log p(y_b | x_{t,b}, t_b), x_t's shape and dtype.

        Raises:
            ValueError: If a condition that it needs is missing.
        """
        for key in self.needs:
            if key not in cond.values:
                raise ValueError(
                    f"guidance: Classifier needs the condition '{key}', there is none; expected "
                    "data with classes, or a sampler without this guidance"
                )
        if self._device != x_t.device:
            self.classifier.to(x_t.device)
            self._device = x_t.device
        full = torch.autocast(x_t.device.type, enabled=False)
        # What was made in inference mode cannot take part in a gradient; copies can.
        with torch.inference_mode(False), torch.enable_grad(), full:
            x = x_t.detach().clone().to(torch.promote_types(x_t.dtype, torch.float32))
            copies = Condition({k: v.clone() for k, v in cond.values.items()}, cond.null)
            total = self.classifier(x.requires_grad_(), t.clone(), copies).sum()
            (gradient,) = torch.autograd.grad(total, x)
        return gradient.to(x_t.dtype)

    def check(self, process: Process, data: Any) -> None:
        """See `Guidance`; also that both were trained on the same data."""
        guide, kind = self.classifier, type(data).__name__
        if not data.num_classes:
            raise ValueError(
                f"guidance: Classifier needs labels, {kind} has none; expected data with classes, "
                "or a sampler without this guidance"
            )
        if difference := _difference(guide.process, process):
            raise ValueError(f"guidance.classifier: it was trained with {difference}")
        if guide.shape != tuple(data.shape):
            raise ValueError(
                f"guidance.classifier: it was trained on samples of shape {guide.shape}; "
                f"expected {tuple(data.shape)}, as {kind} has them"
            )
        if guide.num_classes not in (None, data.num_classes):
            raise ValueError(
                f"guidance.classifier: it knows {guide.num_classes} classes; expected the "
                f"{data.num_classes} of {kind}"
            )
        classes = getattr(data, "classes", None)
        if guide.classes and classes and list(guide.classes) != list(classes):
            one, other = next((a, b) for a, b in zip(guide.classes, classes) if a != b)
            raise ValueError(
                f"guidance.classifier: it knows a class '{one}'; expected '{other}', as in {kind}"
            )
        if not (guide.classes and classes) and guide.data not in (None, kind):
            raise ValueError(
                f"guidance.classifier: it was trained on {guide.data}; expected {kind}, "
                "the labels may mean something else"
            )


def _difference(trained: Process, wanted: Process) -> str | None:
    """Says in words where two processes differ, or returns None."""
    if trained.T != wanted.T:
        return f"T = {trained.T}; expected the model's process, T = {wanted.T}"
    tables = ("α", trained.alpha, wanted.alpha), ("σ", trained.sigma, wanted.sigma)
    for name, here, there in tables:
        t = int((here - there).abs().argmax())
        if (here[t] - there[t]).abs() > 1e-6:
            return (
                f"{name} = {here[t]:.4g} at t = {t}; expected the model's process, "
                f"{name} = {there[t]:.4g}"
            )
    return None
