"""AdamW without a schedule of the rate: gradients at one point, an average as the result."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

COUNTS = ("step", "largest", "total")  # steps, the largest η, Σ η²


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """y = (1 − β₁) z + β₁ x, z ← z − η (g(y) / √v̂ + λ y), x ← (1 − c) x + c z, c = η² / Σ η².

    From Defazio et al. 2024 (https://arxiv.org/abs/2405.15682, Algorithm 1). Gradients are taken at
    y, which is what the parameters hold; v̂ is Adam's second moment without its bias; the result is
    the average x, which needs no rate that falls, as it is an average of all z. `ema.decay: null`
    evaluates and keeps x. A rate that rises at first is the schedule's (`Warmup` without a total);
    η in c is the largest so far.

    Args:
        params: What is trained.
        lr: η.
        betas: β₁, and β₂ of v.
        eps: Added to √v̂.
        weight_decay: λ, at y.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 < betas[0] < 1 or not 0 <= betas[1] < 1:
            raise ValueError(f"optimizer.betas: {betas}; expected 0 < β₁ < 1 and 0 ≤ β₂ < 1")
        if lr < 0:
            raise ValueError(f"optimizer.lr: {lr}; expected at least 0")
        options: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps}
        super().__init__(params, options | {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves all parameters once; see `torch.optim.Optimizer`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            together: dict[tuple[float, ...], list[Tensor]] = defaultdict(list)
            for p in (p for p in group["params"] if p.grad is not None):
                if not self.state[p]:
                    begin = {"z": p.detach().clone(), "exp_avg_sq": torch.zeros_like(p)}
                    self.state[p] = begin | dict.fromkeys(COUNTS, 0.0)
                together[tuple(self.state[p][name] for name in COUNTS)].append(p)
            for counts, some in together.items():
                self._move(group, some, counts)
        return loss

    def _move(self, group: dict[str, Any], y: list[Tensor], counts: Sequence[float]) -> None:
        """Moves parameters of a group that have moved as often, under the same rates."""
        z, v = ([self.state[p][name] for p in y] for name in ("z", "exp_avg_sq"))
        grads = [p.grad for p in y if p.grad is not None]
        rate, (beta_1, beta_2) = group["lr"], group["betas"]
        steps, largest = counts[0] + 1, max(counts[1], rate)
        total = counts[2] + largest**2
        c = largest**2 / total if total else 1.0
        for p in y:
            self.state[p] |= zip(COUNTS, (steps, largest, total))
        torch._foreach_mul_(v, beta_2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta_2)
        below = torch._foreach_div(v, 1 - beta_2**steps)
        torch._foreach_sqrt_(below)
        torch._foreach_add_(below, group["eps"])
        move = torch._foreach_div(grads, below)
        if group["weight_decay"]:
            torch._foreach_add_(move, y, alpha=group["weight_decay"])
        # x is β₁⁻¹ (y − (1 − β₁) z), so it need not be kept.
        torch._foreach_lerp_(y, z, c)
        torch._foreach_add_(y, move, alpha=rate * (beta_1 * (1 - c) - 1))
        torch._foreach_add_(z, move, alpha=-rate)

    @torch.no_grad()
    def averages(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Returns x of some parameters; of those that have not moved, themselves."""
        beta = {p: group["betas"][0] for group in self.param_groups for p in group["params"]}
        return [
            torch.lerp(self.state[p]["z"], p, 1 / beta[p]) if self.state.get(p) else p.detach()
            for p in params
        ]
