# pyright: strict
"""Several samples of which one is kept (DALL-E 2, Ramesh et al. 2022, section 2.2)."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.condition import Condition
from diffusion.denoiser import Denoiser
from diffusion.process import Process
from diffusion.sampler import Sampler


class Candidates(Sampler):
    """Draws n candidates and keeps the one with the largest cos(x_0, c), c a condition of x_0's D.

    The paper draws two embeddings of pictures and keeps the one nearer to the text's. The guide
    chooses, so a figure by the same CLIP is too good for it. Candidates differ in all their noise;
    of the times before the last the first one's x is shown.

    Args:
        n: How many.
        near: The name of c, such as text_pooled, which `ClipText` makes the text's embedding.
        **kwargs: As for `Sampler`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, n: int = 2, near: str = "text_pooled", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_counts("sampler", n=n)
        self.n, self.near = n, near

    @torch.no_grad()
    def trajectory(
        self,
        denoiser: Denoiser,
        process: Process,
        x_T: Tensor,
        cond: Condition | None = None,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> Iterator[Tensor]:
        """See `Sampler`.

        Raises:
            ValueError: If there is no such condition, or it is not of x_0's size.
        """
        cond = Condition() if cond is None else cond
        if self.near not in cond.values or cond.values[self.near].shape != x_T.shape:
            raise ValueError(
                f"sampler.near: {self.near}; expected a condition of shape {tuple(x_T.shape)}, as "
                f"what is drawn; there are { {k: tuple(v.shape) for k, v in cond.values.items()} }"
            )

        def noise(x: Tensor) -> Tensor:  # each candidate's is drawn for the B samples
            return torch.cat([randn_like(part) for part in x.chunk(self.n)])

        each = torch.cat([x_T, *(randn_like(x_T) for _ in range(self.n - 1))])
        every, last = reduce(Condition.cat, [cond] * self.n), len(self.times(process)) - 1
        steps = super().trajectory(denoiser, process, each, every, noise)
        for moment, x in enumerate(steps, 1):
            parts = torch.stack(x.chunk(self.n))
            yield self._nearest(parts, cond.values[self.near]) if moment == last else parts[0]

    @staticmethod
    def _nearest(parts: Tensor, c: Tensor) -> Tensor:
        """Returns of candidates (n, B, D) those nearest to c (B, D)."""
        best = F.cosine_similarity(parts, c[None], dim=2).argmax(0)
        return parts[best, torch.arange(len(c), device=c.device)]
