"""Muon: momentum whose matrices are made orthogonal, and AdamW for everything else."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class MuonWithAdamW(torch.optim.AdamW):
    """θ ← (1 − η λ) θ − 0.2 √max(m, n) η O(μ B + (1 − μ) G), B ← μ B + (1 − μ) G, for matrices.

    From Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the factor of Liu et
    al. 2025 (https://arxiv.org/abs/2502.16982, section 2.2), with which an entry moves as far as
    under AdamW, so that one rate serves both. A kernel (m, c, h, w) is the matrix (m, chw).
    Vectors, and matrices with a side below `least`, move by AdamW: biases, norms, and what the
    authors except by name, the layers that read and write pictures and the tables of labels.

    Args:
        params: What is trained.
        lr: η of both.
        weight_decay: λ of both.
        momentum: μ.
        iterations: Of Newton and Schulz, see `orthogonal`.
        least: The smallest side of a matrix that is made orthogonal.
        betas: Of AdamW.
        eps: Of AdamW.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        iterations: int = 5,
        least: int = 32,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"optimizer.momentum: {momentum}; expected 0 ≤ momentum < 1")
        if iterations < 1:
            raise ValueError(f"optimizer.iterations: {iterations}; expected at least 1")
        self.momentum, self.iterations = momentum, iterations
        kinds: dict[bool, list[Tensor]] = {True: [], False: []}
        for p in params:
            kinds[p.ndim > 1 and min(p.flatten(1).shape) >= least].append(p)
        groups = [{"params": some, "orthogonal": kind} for kind, some in kinds.items()]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves both kinds once; see `torch.optim.Optimizer`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        every = self.param_groups
        for group in every:
            if group["orthogonal"]:
                self._move(group)
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = every
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        """Moves the matrices of a group; those of one shape are made orthogonal together."""
        parts: dict[Any, list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                parts[p.flatten(1).shape, p.device, p.dtype].append(p)
        for (shape, _, _), some in parts.items():
            grads = [p.grad for p in some if p.grad is not None]
            kept = [self.state[p] for p in some]
            for state, p in zip(kept, some):
                if not state:
                    state["step"] = torch.zeros(())  # `AdamW` looks for it when it is restored
                    state["momentum_buffer"] = torch.zeros_like(p)
                state["step"] += 1
            buffers = [state["momentum_buffer"] for state in kept]
            torch._foreach_lerp_(buffers, grads, 1 - self.momentum)
            ahead = torch._foreach_lerp(grads, buffers, self.momentum)
            moves = orthogonal(torch.stack([x.flatten(1) for x in ahead]), self.iterations)
            torch._foreach_mul_(some, 1 - group["lr"] * group["weight_decay"])
            rate = 0.2 * math.sqrt(max(shape)) * group["lr"]
            rows = [move.reshape(p.shape) for move, p in zip(moves.to(some[0].dtype), some)]
            torch._foreach_add_(some, rows, alpha=-rate)


def orthogonal(G: Tensor, iterations: int = 5) -> Tensor:
    """Returns U S' Vᵀ for G = U S Vᵀ, with S' in 0.68 … 1.14 where S > 0.01 ‖G‖.

    X ← (a + b X Xᵀ + c (X Xᵀ)²) X, from X = G / ‖G‖, is a quintic polynomial of the singular
    values; a, b, c are Jordan's, steep at 0 rather than exact at 1. All factors are polynomials of
    A = X Xᵀ and commute, so that they are multiplied as matrices of the shorter side, and G itself
    twice instead of ten times: P = a + b A + c A², A ← P A P, and the product of all P and X.

    Args:
        G: Matrices, (..., m, n).
        iterations: How many; 5 in the paper.
    """
    a, b, c = COEFFICIENTS
    wide = G.shape[-2] <= G.shape[-1]
    X = (G if wide else G.mT).float()
    X = X / X.flatten(-2).norm(dim=-1)[..., None, None].clamp(min=1e-7)
    A, factors = X @ X.mT, list[Tensor]()
    for left in reversed(range(iterations)):
        P = b * A + c * A @ A
        P.diagonal(dim1=-2, dim2=-1).add_(a)
        factors.append(P)
        if left:
            A = P @ A @ P
    X = reduce(torch.matmul, factors) @ X
    return X if wide else X.mT
