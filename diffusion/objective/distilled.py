# pyright: strict
"""Fewer evaluations: a student whose one step is several of a teacher's, its guidance included."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.common.hashing import weights_digest
from diffusion.common.validate import check_counts
from diffusion.condition import Condition
from diffusion.denoiser import Denoiser, FrozenDenoiser, NetworkDenoiser
from diffusion.guidance import Guidance
from diffusion.guidance.gradient import check_process
from diffusion.objective.base import Objective
from diffusion.process import Process
from diffusion.spec import DataSpec
from diffusion.step import DDIM, Step


class Teacher(ABC):
    """Where a trained denoiser comes from, which is read when it is first asked."""

    @abstractmethod
    def read(self) -> FrozenDenoiser:
        """Returns the denoiser."""


class Distilled(Objective):
    """‖F*(x̃) − F(x_t, t)‖²: one DDIM step of the student is k of the teacher's.

    Progressive distillation (Salimans & Ho 2022, algorithm 2; https://arxiv.org/abs/2202.00512).
    The student's times are round(i T / N), i = 1 … N, as a `Sampler` of N steps with the spacing
    "trailing" visits them. From x_t the teacher goes to x_s at the student's next time s in k equal
    steps, and x̃ is the x̂_0 by which one step from x_t would get there (appendix G, eq. 40),

        x̃ = (x_s − (σ_s / σ_t) x_t) / (α_s − (σ_s / σ_t) α_t).

    Measured in the network's output, which with `V` is the paper's weight SNR + 1. A teacher that
    is guided has its guidance taught, so that the student draws without: that is stage one of Meng
    et al. 2023 (https://arxiv.org/abs/2210.03142) for one w. The paper halves: N = 4 from a teacher
    of 8 steps, which was the student before, and so on. Draw with `DDIM`, N steps.

    Args:
        teacher: The teacher.
        steps: N.
        substeps: k; the paper's is 2.
        guidance: Applied to the teacher, as for a `Sampler`.

    Raises:
        ValueError: If a number is below 1.
    """

    regresses = True

    def __init__(
        self, teacher: Teacher, steps: int, substeps: int = 2, guidance: Sequence[Guidance] = ()
    ) -> None:
        check_counts("objective", steps=steps, substeps=substeps)
        self.teacher, self.steps, self.substeps = teacher, steps, substeps
        self.guidance = guidance
        self._read: FrozenDenoiser | None = None
        self._device = torch.device("cpu")
        self._grid = torch.zeros(0, dtype=torch.long)

    def check(self, process: Process, data: DataSpec) -> None:
        """Reads the teacher, and refuses one of another process or of other data."""
        if (n := self.steps * self.substeps) > process.T:
            raise ValueError(
                f"model.objective.steps: {self.steps} of {self.substeps} each; expected at most "
                f"the process's T = {process.T} in all, not {n}"
            )
        key, teacher = "model.objective.teacher", self._known(torch.device("cpu"))
        check_process(key, teacher.denoiser.process, process)
        if found := teacher.spec.difference(data):
            raise ValueError(f"{key}: it was trained on {found[0]}; expected {found[1]}")

    def check_drawing(self, process: Process, step: Step, times: Tensor) -> None:
        """Refuses all but what is taught: DDIM with η = 0, over the student's own times."""
        if not isinstance(step, DDIM) or step.eta != 0:
            eta = f" of eta {step.eta}" if isinstance(step, DDIM) else ""
            raise ValueError(
                f"model.sampler.step: {type(step).__name__}{eta}; expected DDIM of eta 0, one step "
                "of which the student has been taught"
            )
        own = self._times(process, times.device)[:: self.substeps].flip(0)
        if not torch.equal(times, own[-len(times) :]):
            asked, known = ([int(t) for t in grid] for grid in (times, own))
            raise ValueError(
                f"model.sampler: {len(times) - 1} steps over the times {asked}; expected "
                f"steps: {self.steps}, spacing: trailing, as the student knows {known}"
            )

    def _known(self, device: torch.device) -> FrozenDenoiser:
        if self._read is None:
            self._read = self.teacher.read()
        if self._device != device:  # once: a module of many parameters takes its time
            self._read, self._device = self._read.to(device), device
        return self._read

    def _times(self, process: Process, device: torch.device) -> Tensor:
        """Returns the teacher's times 0 … T, rising, (N k + 1,)."""
        n = self.steps * self.substeps
        if len(self._grid) != n + 1 or self._grid.device != device:
            place = torch.arange(n + 1, dtype=torch.float64, device=device)
            self._grid = (place * process.T / n).round().long()
        return self._grid

    def taught(self, process: Process, x_t: Tensor, i: Tensor, cond: Condition) -> Tensor:
        """Returns x̃, x_t's shape.

        Args:
            process: The forward process.
            x_t: Samples at the teacher's times number i k, (B, ...).
            i: The student's steps, (B,) in 1 … N.
            cond: What is taught under.
        """
        teacher: Denoiser = self._known(x_t.device)
        guided: Denoiser = reduce(lambda inner, guide: guide(inner), self.guidance, teacher)
        grid, x = self._times(process, x_t.device), x_t
        times = [grid[i * self.substeps - m] for m in range(self.substeps + 1)]
        for t, s in pairwise(times):
            x = DDIM()(lambda x, t: guided(x, t, cond), process, x, t, s, torch.zeros_like)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            process.lookup(t, x_t) for t in (times[0], times[-1])
        )
        ratio = sigma_s / sigma_t
        return ((x - ratio * x_t) / (alpha_s - ratio * alpha_t)).to(x_t.dtype)

    def loss(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, t: Tensor, eps: Tensor
    ) -> Tensor:
        """See `Objective`; a time goes up to the student's next one."""
        process = denoiser.process
        i = (t * self.steps + process.T - 1) // process.T
        t = self._times(process, x_0.device)[i * self.substeps]
        x_t = process.diffuse(x_0, t, eps)
        with torch.no_grad():
            x_0 = self.taught(process, x_t, i, cond)
        F, _ = denoiser.output(x_t, t, cond)
        target = denoiser.parameterization.target(x_0, process, t, x_t)
        return (F - target).square().flatten(1).mean(1)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the digest of the teacher's weights, as a name."""
        return {} if self._read is None else {self._mark(self._read): torch.empty(0)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Refuses to resume with another teacher.

        Raises:
            ValueError: If its weights are others.
        """
        if state and self._read is not None and (mine := self._mark(self._read)) not in state:
            raise ValueError(
                f"model.objective.teacher: {mine}; expected {min(state)}, with which training began"
            )

    @staticmethod
    def _mark(teacher: FrozenDenoiser) -> str:
        return f"teacher_{weights_digest(teacher.state_dict())}"
