# pyright: strict, reportUnnecessaryIsInstance=false
"""Guidance by a classifier of noisy images (Dhariwal & Nichol 2021; https://arxiv.org/abs/2105.05233).

The score that `Gradient` follows is log p(y | x_t, t).
"""

from abc import ABC, abstractmethod
from copy import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.gradient import Gradient, check_process, gradient_of
from diffusion.process import Process, Variance
from diffusion.spec import DataSpec


class NoiseAware(nn.Module, ABC):
    """Scores noisy samples against a condition: log p(condition | x_t, t) up to a constant.

    Args:
        process: The forward process that made the x_t it was trained on.
        spec: What it was trained on: the shape of a sample, and the classes if the condition is a
            label.
    """

    def __init__(self, process: Process, spec: DataSpec) -> None:
        super().__init__()
        self.process, self.spec = process, spec

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


class Classifier(Gradient):
    """x̂_0 ← x̂_0 + s (σ_t² / α_t) ∇ log p(y | x_t, t), that is ε̂ ← ε̂ − s σ_t ∇ log p (eq. 14).

    The gradient is taken in float32 at least and does not flow into the denoiser.

    The order in `sampler.guidance` matters. [Static, Classifier] is the authors' code: x̂_0 is
    clipped, then guided, and not clipped again. [Classifier, Static] clips what was guided, which
    keeps σ_t² / α_t in check where α_t is small, as at the end of `Cosine`. In a list
    [Classifier, ClassifierFree] the half without label is not guided.

    Args:
        scale: s; 0 is off. With exact p and the unconditional denoiser, 1 gives p(x_0 | y).
        classifier: Trained on x_t of the same process.
        interval: As for `Gradient`.

    Raises:
        ValueError: If the scale is not finite, the interval is empty, or the classifier is
            something else.
    """

    needs: ClassVar[tuple[str, ...]] = ("label",)

    def __init__(
        self, scale: float, classifier: NoiseAware, interval: tuple[int, int] | None = None
    ) -> None:
        super().__init__(scale, classifier, interval)
        if not isinstance(classifier, NoiseAware):
            raise ValueError(
                f"guidance.classifier: {type(classifier).__name__}; expected a NoiseAware module, "
                "such as Trained with the checkpoint of a NoisyClassifier"
            )
        self.classifier = classifier

    def evaluate(
        self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition
    ) -> tuple[Prediction, Tensor]:
        """See `Gradient`."""
        return denoise(x_t, t, cond), self.gradient(x_t, t, cond)

    def gradient(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Returns ∇_{x_t} Σ_b log p(y_b | x_{t,b}, t_b), x_t's shape and dtype.

        Raises:
            ValueError: If a condition that it needs is missing.
        """
        for key in self.needs:
            if key not in cond.values:
                raise self.lacks(f"the condition '{key}'", "data with classes")
        return gradient_of(self.classifier, x_t, t, cond)

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Guidance`; also that both were trained on the same data."""
        if not data.num_classes:
            raise self.lacks("labels", "data with classes", f"{data.name} has")
        check_process("guidance.classifier", self.classifier.process, process)
        trained = self.classifier.spec
        if found := trained.difference(data):
            raise ValueError(
                f"guidance.classifier: it was trained on {found[0]}; expected {found[1]}, as in "
                f"{data.name}"
            )


class ClassifierMean(Classifier):
    """μ ← μ + s Σ ∇ log p(y | x_t, t), for ancestral steps N(μ, Σ) (algorithm 1).

    The shift of the authors' code, which has the gradient at x_t too, and Σ as the step has it,
    learned or not: x̂_0 ← x̂_0 + s (Σ / a) ∇ log p with a the weight of x_0 in μ. As in their code
    x̂_0 is clipped before and not after: [Static, ClassifierMean]. Arguments as for `Classifier`,
    whose shift of μ differs by the factor α_s σ²_{t|s} / (α_t Σ), near 1 for many steps and small
    noise, and large where a step of the grid leaves a time of next to no signal.
    """

    _trajectory: tuple[Process, Tensor, Variance] | None = None

    def begin(
        self, process: Process, times: Tensor, ancestral: Variance | None
    ) -> "ClassifierMean":
        """See `Guidance`.

        Raises:
            ValueError: If the step is not an ancestral one.
        """
        if ancestral is None:
            raise ValueError(
                "sampler.guidance: ClassifierMean shifts the mean of an ancestral step; expected "
                "the step DDPM, or the guidance Classifier, which works with every step"
            )
        following = torch.zeros(process.T + 1, dtype=torch.long)
        following[times[:-1]] = times[1:]
        guide = copy(self)
        guide._trajectory = process, following, ancestral
        return guide

    def weight(self, pred: Prediction, t: Tensor) -> Tensor:
        """Returns Σ / a; see `Gradient`."""
        if self._trajectory is None:
            raise ValueError("guidance: ClassifierMean has no grid of times; expected a Sampler")
        process, following, variance = self._trajectory
        s = following.to(t.device)[t]
        log_variance = process.reverse_log_variance(t, s, pred.x_t, variance, pred.v)
        return log_variance.exp() / process.posterior_weights(t, s, pred.x_t)[0]
