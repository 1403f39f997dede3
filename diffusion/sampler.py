# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The reverse process. This is the only sampling loop in the project.

x_T ──► denoise ──► guidance, inner to outer ──► x̂_0, ε̂ ──► step ──► x_s ──┐
 ▲                                                                        │
 └──────────────────────────── t ← s, until s = 0 ◄───────────────────────┘

To edit a picture, the loop starts lower, from the picture with noise (SDEdit, Meng et al. 2022;
https://arxiv.org/abs/2108.01073).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from diffusion.condition import Condition
from diffusion.denoiser import Denoiser
from diffusion.guidance import Guidance
from diffusion.process import Process
from diffusion.step import Step

Spacing = Literal["trailing", "leading", "linspace", "quadratic", "karras", "log_snr"]


def noise_levels(process: Process | int, n: int, rho: float) -> Tensor:
    """Returns the times nearest to n levels of u = σ/α, but T for the noisiest, shape (n,).

    The levels lie between EDM's 0.002 and 80, or the process's own ends where those are closer,
    equally far apart in u^(1/ρ) (Karras et al. 2022, eq. 5; https://arxiv.org/abs/2206.00364), so
    for ρ = ∞ in log u. The first step, from T, also crosses what lies beyond 80.
    """
    if isinstance(process, int):
        raise ValueError(f"process: T = {process}; expected the process itself for this spacing")
    log_u = (process.sigma / process.alpha)[1:].log()
    low, high = log_u[[0, -1]].clamp(math.log(0.002), math.log(80))
    place = torch.linspace(0, 1, n, dtype=torch.float64)
    levels = torch.lerp(low, high, place)
    if math.isfinite(rho):
        levels = rho * torch.lerp((low / rho).exp(), (high / rho).exp(), place).log()
    above = torch.searchsorted(log_u, levels).clamp(1, process.T - 1)
    times = above + (log_u[above] - levels < levels - log_u[above - 1])
    times[-1] = process.T
    return times


class Sampler:
    """Walks from x_T to x_0 over a grid of times.

    Args:
        step: How to move from one time to the next.
        steps: How many moves; by default T.
        guidance: Applied to the denoiser in this order, so that the last one is outermost.
        spacing: The grid. "trailing" starts at T and moves by T / steps; "leading" ends at 1 and
            moves by ⌊T / steps⌋ (DDIM's code, "uniform"); "linspace" has both ends; "quadratic" is
            (linspace from 0 to √(0.8 T))², finer near 0 (DDIM, appendix D.2, for CIFAR-10). It
            begins at 0.8 T, where `Linear` has next to no signal left but `Cosine` still has
            α = 0.31, which more steps cannot mend. "karras" (EDM's ρ = 7) and "log_snr" (uniform in
            log(α/σ), as DPM-Solver takes it) start at T and are spaced by the noise level, see
            `noise_levels`. Times that coincide are visited once; a single step starts at T.
        strength: How much of a given picture is drawn anew, 0 … 1. At 1 the samples start from x_T
            and no picture is looked at. Below, they start from x_τ = α_τ known + σ_τ x_T at the
            time τ nearest to strength · T, or at the grid's first time if that is earlier, and go
            on over the grid's times below τ; 0 gives the picture back. "known" is a condition.

    Raises:
        ValueError: If steps is not positive, or the strength lies outside 0 … 1.
    """

    def __init__(
        self,
        step: Step,
        steps: int | None = None,
        guidance: Sequence[Guidance] = (),
        spacing: Spacing = "trailing",
        strength: float = 1.0,
    ) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"sampler.steps: {steps}; expected at least 1")
        if not 0 <= strength <= 1:
            raise ValueError(f"sampler.strength: {strength}; expected 0 … 1")
        self.step, self.steps, self.guidance, self.spacing = step, steps, guidance, spacing
        self.strength = strength

    @property
    def needs(self) -> frozenset[str]:
        """The conditions that the sampler and its guidance read, even if the network does not."""
        own = () if self.strength == 1 else ("known",)
        return frozenset(own).union(*(guide.needs for guide in self.guidance))

    def times(self, process: Process | int) -> Tensor:
        """Returns the times visited, decreasing and ending with 0, int64, on the CPU.

        They are steps + 1, or fewer where times coincide or the strength is below 1.

        Args:
            process: The forward process; its T is enough where the spacing ignores the noise.

        Raises:
            ValueError: If there are more steps than times, or only T is given and not enough.
        """
        T = process if isinstance(process, int) else process.T
        n = self.steps or T
        if n > T:
            raise ValueError(f"sampler.steps: {n}; expected at most the process's T = {T}")
        i = torch.arange(1, n + 1, dtype=torch.float64)
        levels = {
            "trailing": lambda: (i * T / n).round(),
            "leading": lambda: (i - 1) * (T // n) + 1,
            "linspace": lambda: torch.linspace(0, T - 1, n, dtype=torch.float64).round() + 1,
            "quadratic": lambda: (
                torch.linspace(0, (0.8 * T) ** 0.5, n, dtype=torch.float64).square().floor() + 1
            ),
            "karras": lambda: noise_levels(process, n, 7.0),
            "log_snr": lambda: noise_levels(process, n, math.inf),
        }[self.spacing if n > 1 else "trailing"]()
        t: Tensor = levels.long().unique()
        if self.strength < 1:
            first = t[-1:].clamp(max=round(self.strength * T))
            t = torch.cat([t[t < first], first])
        return torch.cat([t[t > 0].flip(0), torch.zeros(1, dtype=torch.long)])

    def begin(self, process: Process) -> list[Guidance]:
        """Returns the guidance of one trajectory.

        Raises:
            ValueError: If the grid, the step or a guidance does not fit the process or the step.
        """
        if process.binary != self.step.binary:
            what, right = ("bits", "Bernoulli") if process.binary else ("no bits", "another")
            raise ValueError(
                f"sampler.step: {type(self.step).__name__}; expected {right}, as "
                f"{type(process).__name__} is a process of {what}"
            )
        times = self.times(process)
        return [guide.begin(process, times, self.step.ancestral) for guide in self.guidance]

    def start(self, process: Process, x_T: Tensor, cond: Condition) -> Tensor:
        """Returns x at the first time visited: x_T ~ p(x_T) or, if the strength is below 1, x_τ.

        Args:
            process: The forward process.
            x_T: Standard normal noise, shape (B, ...).
            cond: With "known", images in [−1, 1] of x_T's shape, if the strength is below 1.

        Raises:
            ValueError: If there is no picture to start from.
        """
        if self.strength == 1:
            return process.prior(x_T)
        if "known" not in cond.values:
            raise ValueError(
                f"sampler.strength: {self.strength}; expected 1, or a picture to start from"
            )
        return process.diffuse(cond.values["known"].to(x_T), self.times(process)[0], x_T)

    @torch.no_grad()
    def trajectory(
        self,
        denoiser: Denoiser,
        process: Process,
        x_T: Tensor,
        cond: Condition | None = None,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> Iterator[Tensor]:
        """Yields x at every time visited after the first; the last one is x_0.

        Args:
            denoiser: Estimates x_0.
            process: The forward process.
            x_T: Standard normal noise, shape (B, ...).
            cond: What the samples are conditioned on.
            randn_like: The noise of stochastic steps.
        """
        cond, guides = Condition() if cond is None else cond, self.begin(process)
        guided: Denoiser = reduce(lambda inner, guide: guide(inner), guides, denoiser)
        step, x = self.step.begin(), self.start(process, x_T, cond)
        for t, s in pairwise(self.times(process)):
            x = step(lambda x, t: guided(x, t, cond), process, x, t, s, randn_like)
            yield x

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        x_T: Tensor,
        cond: Condition | None = None,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> Tensor:
        """Returns x_0; arguments as for `trajectory`."""
        x = self.start(process, x_T, Condition() if cond is None else cond)
        for x in self.trajectory(denoiser, process, x_T, cond, randn_like):  # noqa: B007
            pass
        return x

    @torch.no_grad()
    def encode(
        self, denoiser: Denoiser, process: Process, x_0: Tensor, cond: Condition | None = None
    ) -> Tensor:
        """Returns the x_T (with strength < 1, the x_τ) from which DDIM would come back to x_0.

        Integrates DDIM's ODE upwards over the same times, d(x/α) = ε̂ d(σ/α) (DDIM, eq. 14):
        x_t = (α_t / α_s) x_s + (σ_t − α_t σ_s / α_s) ε̂(x_s, s), where the network stands in for
        s = 0 at the first time it knows, 1. Without guidance, and so without clipping, which
        cannot be undone.

        Args:
            denoiser: Estimates x_0.
            process: The forward process.
            x_0: Images in [−1, 1], shape (B, ...).
            cond: What they are conditioned on.
        """
        cond, x = Condition() if cond is None else cond, x_0
        for s, t in pairwise(self.times(process).flip(0)):
            (alpha_s, sigma_s), (alpha_t, sigma_t) = process.scales(s, x), process.scales(t, x)
            eps = denoiser(x, s.clamp(min=1), cond).eps
            x = alpha_t / alpha_s * x + (sigma_t - alpha_t / alpha_s * sigma_s) * eps
        return x
