# pyright: strict
"""Times drawn in proportion to how much their loss varies (Improved DDPM, section 3.3, eq. 18)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.objective.base import Objective
from diffusion.process import Process
from diffusion.spec import DataSpec
from diffusion.step import Step


class ImportanceSampled(Objective):
    """L = E_{t ~ p}[L_t / (T p_t)], p_t ∝ √E[L_t²], with another objective's L_t.

    The expectation is that of the last losses seen at each time; until every time has been seen
    often enough, p is uniform. The losses of all processes are gathered, so p is the same on each.
    Validation, whose times are fixed, is neither weighted nor remembered.

    Args:
        objective: Whose loss it is; the paper's is `VariationalBound`.
        depth: How many losses are remembered for each time; 10 in the paper.
        floor: The share of times drawn uniformly all the same; 0.001 in the paper's code.

    Raises:
        ValueError: If the depth is not positive, or the floor lies outside 0 … 1.
    """

    def __init__(self, objective: Objective, depth: int = 10, floor: float = 0.001) -> None:
        if depth < 1:
            raise ValueError(f"objective.depth: {depth}; expected at least 1")
        if not 0 <= floor <= 1:
            raise ValueError(f"objective.floor: {floor}; expected 0 … 1")
        self.objective, self.depth, self.floor = objective, depth, floor
        self.variance, self.regresses = objective.variance, objective.regresses
        # Row t − 1 is time t's; the row behind the last takes what is written to be forgotten.
        self.history, self.count = torch.zeros(1, depth), torch.zeros(0, dtype=torch.long)

    def check(self, process: Process, data: DataSpec) -> None:
        """See `Objective`."""
        self.objective.check(process, data)

    def check_drawing(self, process: Process, step: Step, times: Tensor) -> None:
        """See `Objective`."""
        self.objective.check_drawing(process, step, times)

    def probabilities(self, T: int, device: torch.device | str = "cpu") -> Tensor:
        """Returns p_1 … p_T, shape (T,)."""
        if len(self.count) != T:
            self.history = torch.zeros(T + 1, self.depth)
            self.count = torch.zeros(T, dtype=torch.long)
        self.history, self.count = self.history.to(device), self.count.to(device)
        size = self.history[:T].square().mean(1).sqrt()
        tiny = torch.finfo(size.dtype).tiny
        p = (1 - self.floor) * size / size.sum().clamp(min=tiny) + self.floor / T
        return torch.where((self.count >= self.depth).all(), p, torch.full_like(p, 1 / T))

    def draw(self, process: Process, x_0: Tensor, noise: SeededNoise) -> tuple[Tensor, Tensor]:
        """Draws t from p, the first with u < p_1 + … + p_t, shape (B,), and ε, x_0's shape."""
        below = self.probabilities(process.T, x_0.device).cumsum(0)
        t = torch.searchsorted(below, noise.uniform() * below[-1], right=True)
        return 1 + t.clamp(max=process.T - 1), noise(x_0)

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`; without weights."""
        return self.objective.loss(denoiser, x_0, cond, t, eps)

    def weigh(self, t: Tensor, losses: Tensor) -> Tensor:
        """Returns L_t / (T p_t), and remembers the losses."""
        T = len(self.count)
        p = self.probabilities(T, losses.device)[t - 1]
        self._remember(*_gathered(t, losses.detach().float().nan_to_num()))
        return losses / (T * p)

    def _remember(self, t: Tensor, losses: Tensor) -> None:
        """Puts each loss into its time's ring of `depth` places, all at once."""
        t, order = t.sort(stable=True)
        first = torch.searchsorted(t, t)
        nth = torch.arange(len(t), device=t.device) - first  # among those of the same time
        same = torch.searchsorted(t, t, right=True) - first
        row = torch.where(nth >= same - self.depth, t - 1, len(self.count))
        self.history[row, (self.count[t - 1] + nth) % self.depth] = losses[order]
        self.count.index_add_(0, t - 1, torch.ones_like(t))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the losses remembered."""
        return {"history": self.history.cpu(), "count": self.count.cpu()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state_dict` returned, unless its depth was another."""
        if state and state["history"].shape[1] == self.depth:
            self.history, self.count = state["history"].clone(), state["count"].clone()


def _gathered(t: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the times and losses of all processes, in the same order on each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return t, losses
    world = torch.distributed.get_world_size()
    times, values = ([torch.empty_like(x) for _ in range(world)] for x in (t, losses))
    torch.distributed.all_gather(times, t)
    torch.distributed.all_gather(values, losses)
    return torch.cat(times), torch.cat(values)
