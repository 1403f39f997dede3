# pyright: strict, reportUnnecessaryIsInstance=false
"""Guidance by how well a picture fits a text (GLIDE, Nichol et al. 2021, section 2.4 and 4.4).

https://arxiv.org/abs/2112.10741. CLIP has an encoder f of pictures and an encoder g of texts c, and
⟨f(x), g(c)⟩ takes the place of log p(c | x) in guidance by a classifier:

    μ̂(x_t | c) = μ(x_t | c) + s Σ ∇_{x_t} ⟨f(x_t), g(c)⟩

In GLIDE's code the product is of unit vectors and multiplied by CLIP's inverse temperature, 100, as
in the logits that CLIP was trained by; so it is here. f has to know noisy pictures ("noised CLIP",
section 4.4), or else it is asked about x̂_0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, Prediction
from diffusion.guidance.gradient import Gradient, check_process, copied, gradient_of, recording
from diffusion.process import Process
from diffusion.spec import Batch, DataSpec

PREFIX = "clip"  # what the conditions that a text score reads begin with
MARGIN = 2
# In pairs that cancel, so that an even number of them does not move the picture on the whole.
OFFSETS = ((0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1), (2, 0), (-2, 0), (0, 2), (0, -2))


class TextScore(nn.Module, ABC):
    """Scores pictures against texts: log p(text | x_t, t) up to a factor and a constant.

    Args:
        process: The forward process that made the x_t it knows; None if it knows clean ones only.
        shape: One picture's shape, such as (C, H, W).
        clean: Whether it knows clean pictures, t = 0; by default, if there is no process.
    """

    def __init__(
        self, process: Process | None, shape: Sequence[int], clean: bool | None = None
    ) -> None:
        super().__init__()
        self.process, self.shape = process, tuple(shape)
        self.clean = process is None if clean is None else clean

    @abstractmethod
    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns what `score` reads of texts: (B, ...) each, under names that begin with "clip".

        No gradient flows back to here, so what depends on the text alone is computed here, once.
        """

    @abstractmethod
    def score(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Returns the score of each picture, shape (B,), through which x gets a gradient.

        Each sample's is its own: it does not depend on the rest of the batch. Where the text is
        empty, ∅, there is nothing to be guided to: the score is constant.

        Args:
            x: Shape (B, ...).
            t: Times in 1 … T, or 0 for clean pictures: shape (B,) on x's device, or () on the CPU.
            cond: With what `read` returned.
        """

    def forward(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """See `score`; called like this, hooks can count the evaluations."""
        return self.score(x, t, cond)


class Clip(Gradient):
    """x̂_0 ← x̂_0 + s (σ_t² / α_t) ∇_{x_t} S, S = e^λ ⟨f, g(c)⟩ for `TrainedClip`.

    `on` says what f sees. "x_t": S(x_t, t), for a scorer that knows noisy pictures. "x_0":
    S(x̂_0(x_t), 0), for one that knows clean ones; then ∇_{x_t} S = (∂x̂_0 / ∂x_t)ᵀ ∇_{x̂_0} S goes
    back through the denoiser, at twice the time and all its activations, or, without `through`,
    ∂x̂_0 / ∂x_t is taken for 1 / α_t, which it is for a fixed ε̂. That is right at small t, where
    ε̂ is most of the noise, and far too large where α_t is small: restrict it by `interval`, or end
    the list with `Static`. What `through` goes through are the network and the guidances in front
    of this one: a `Static` there has no gradient where it clips.

    The gradient is taken in float32 at least; it does not flow into the denoiser's weights, nor
    into the text's encoder.

    Args:
        scale: s; 0 is off. In GLIDE's notation, where S has the factor e^λ = 100, too.
        scorer: Anything that scores pictures against texts.
        on: What it scores.
        through: With on="x_0", whether the gradient goes through the denoiser.
        shifts: S is the mean over the picture and so many copies of it that are moved by one or
            two pixels, 0 … 8, always the same, against patterns that please the scorer only.
        interval: As for `Gradient`.

    Raises:
        ValueError: If a number is out of range, or the scorer does not know such pictures.
    """

    def __init__(
        self,
        scale: float,
        scorer: TextScore,
        on: Literal["x_t", "x_0"] = "x_t",
        through: bool = False,
        shifts: int = 0,
        interval: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(scale, scorer, interval)
        if not isinstance(scorer, TextScore):
            raise ValueError(
                f"guidance.scorer: {type(scorer).__name__}; expected a TextScore module, such as "
                "TrainedClip with the checkpoint of a Contrastive"
            )
        knows = {"x_t": scorer.process is not None, "x_0": scorer.clean}
        if on not in knows:
            raise ValueError(f"guidance.on: '{on}'; expected 'x_t' or 'x_0'")
        if not knows[on]:
            other, kind = ("x_0", "clean") if on == "x_t" else ("x_t", "noisy")
            raise ValueError(
                f"guidance.on: '{on}'; expected '{other}', as the scorer knows {kind} pictures only"
            )
        if through and on == "x_t":
            raise ValueError(
                "guidance.through: True; expected False with on 'x_t', which needs no denoiser"
            )
        moves = len(OFFSETS) - 1 if len(scorer.shape) == 3 else 0
        if not 0 <= shifts <= moves:
            raise ValueError(
                f"guidance.shifts: {shifts}; expected 0 … {moves} for samples of {scorer.shape}"
            )
        self.scorer, self.on, self.through, self.shifts = scorer, on, through, shifts

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Returns what the scorer reads of batch["text"], if there are texts."""
        return self.scorer.read(batch["text"]) if "text" in batch else {}

    def evaluate(
        self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition
    ) -> tuple[Prediction, Tensor]:
        """See `Gradient`.

        Raises:
            ValueError: If there is no text.
        """
        if not any(key.startswith(PREFIX) for key in cond.values):
            raise self.lacks("the condition 'text'", "data with captions")
        if self.on == "x_t":
            return denoise(x_t, t, cond), gradient_of(self.score, x_t, t, cond)
        if self.through:
            return self._through(denoise, x_t, t, cond)
        pred = denoise(x_t, t, cond)
        gradient = gradient_of(self.score, pred.x_0, torch.tensor(0), cond)
        return pred, gradient / torch.where(pred.alpha > 0, pred.alpha, 1.0)

    def score(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Returns the mean of S over the moved copies, shape (B,); arguments as for `TextScore`."""
        if not self.shifts:
            return self.scorer(x, t, cond)
        n, (H, W) = self.shifts + 1, x.shape[-2:]
        wide = F.pad(x, (MARGIN,) * 4, mode="replicate")
        corners = [(MARGIN + dy, MARGIN + dx) for dy, dx in OFFSETS[:n]]
        moved = torch.cat([wide[..., i : i + H, j : j + W] for i, j in corners])
        values = {k: torch.cat([v] * n) for k, v in cond.values.items()}
        t = t if t.ndim == 0 else t.repeat(n)
        return self.scorer(moved, t, Condition(values, cond.null)).unflatten(0, (n, -1)).mean(0)

    def _through(
        self, denoise: Denoiser, x_t: Tensor, t: Tensor, cond: Condition
    ) -> tuple[Prediction, Tensor]:
        """Returns x̂_0 and ∇_{x_t} Σ_b S(x̂_0(x_t)), from one evaluation of the denoiser.

        An outer gradient guidance can still differentiate through x̂_0.
        """
        outer = torch.is_grad_enabled()
        with recording(x_t.device):
            x = x_t if outer and x_t.requires_grad else x_t.detach().clone().requires_grad_()
            copies = copied(cond)
            pred = denoise(x, t.clone(), copies)
            with torch.autocast(x_t.device.type, enabled=False):
                x_0 = pred.x_0.to(torch.promote_types(x_t.dtype, torch.float32))
                total = self.score(x_0, torch.tensor(0), copies).sum()
                (gradient,) = torch.autograd.grad(total, x, retain_graph=outer)
        if outer:
            return pred, gradient
        v = None if pred.v is None else pred.v.detach()
        return replace(pred, x_t=x_t, x_0=pred.x_0.detach(), v=v), gradient

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Guidance`; also that there are texts."""
        if not data.captioned:
            raise self.lacks("texts", "data with captions", f"{data.name} has")
        if self.on == "x_t" and self.scorer.process is not None:
            check_process("guidance.scorer", self.scorer.process, process)
        if self.scorer.shape != data.shape:
            raise ValueError(
                f"guidance.scorer: it was trained on samples of shape {self.scorer.shape}; "
                f"expected {data.shape}, as in {data.name}"
            )
