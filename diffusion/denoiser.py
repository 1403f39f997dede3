# pyright: strict
"""From x_t to an estimate of x_0: the one interface that objectives, guidance and steps know."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.networks.base import Network, adapt
from diffusion.networks.locked import Locked
from diffusion.parameterization import Parameterization, check
from diffusion.process import Process
from diffusion.spec import DataSpec


@dataclass(frozen=True)
class Prediction:
    """An estimate of x_0 and, equivalently, of ε: x_t = α_t x̂_0 + σ_t ε̂ always holds.

    Attributes:
        x_t: What was denoised, shape (B, ...).
        x_0: The estimate x̂_0, shape (B, ...).
        alpha: α_t, broadcastable against x_t.
        sigma: σ_t, broadcastable against x_t.
        v: The learned variance's place between log β̃ (0) and log β (1), x_t's shape, or None.
        known: Where x̂_0 is x_0 itself and no estimate, bool, broadcastable, or None for nowhere.
            There p(x_s | x_t) is the posterior, whose variance is β̃ whatever is learned or chosen.
    """

    x_t: Tensor
    x_0: Tensor
    alpha: Tensor
    sigma: Tensor
    v: Tensor | None = None
    known: Tensor | None = None

    @property
    def eps(self) -> Tensor:
        """ε̂ = (x_t − α_t x̂_0) / σ_t."""
        return (self.x_t - self.alpha * self.x_0) / self.sigma

    def with_x_0(self, x_0: Tensor) -> "Prediction":
        """Returns a copy with another x̂_0, and therefore another ε̂."""
        return replace(self, x_0=x_0)

    def with_eps(self, eps: Tensor) -> "Prediction":
        """Returns a copy with another ε̂, and therefore another x̂_0; needs α_t > 0."""
        return replace(self, x_0=(self.x_t - self.sigma * eps) / self.alpha)


class Denoiser(Protocol):
    """Anything that estimates x_0 from x_t."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """Estimates x_0.

        Args:
            x_t: Shape (B, ...).
            t: Times in 1 … T: shape (B,) on x_t's device, or one time for all, shape (), on the
                CPU, which is what a sampler hands over so that nobody waits to read it.
            cond: What x_0 is conditioned on.
        """
        ...


class NetworkDenoiser(nn.Module):
    """A network, the process that it denoises, and the meaning of its output.

    Args:
        network: Called as network(x_t, t, **conditions) with t of shape (B,) in 1 … T. Its output
            has x_t's channels, or twice as many if it also predicts the reverse variance.
        process: The forward process.
        parameterization: What the output means.

    Attributes:
        conditions: The names of the conditions that the network takes; None for all.

    Raises:
        ValueError: If the parameterisation is undefined for the process.
    """

    def __init__(
        self, network: nn.Module, process: Process, parameterization: Parameterization
    ) -> None:
        super().__init__()
        check(parameterization, process)
        self.network, self.process, self.parameterization = network, process, parameterization
        self._contract = (adapt(network),)  # in a tuple, so that it is no second submodule
        names = self.contract.conditions
        self.conditions = None if names is None else frozenset(names)

    @property
    def contract(self) -> Network:
        """What is known of the network: itself, or what `adapt` makes of another module."""
        return self._contract[0]

    def output(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor | None]:
        """Returns F and the raw variance output, or None; in x_t's dtype even under autocast."""
        if t.ndim == 0:
            t = torch.full(x_t.shape[:1], int(t), device=x_t.device)
        known = cond.values if self.conditions is None else self.conditions
        values = {k: v for k, v in cond.values.items() if k in known}
        out = self.network(x_t, t, **values).to(x_t.dtype)
        if out.shape[1] == 2 * x_t.shape[1]:
            F, v = out.chunk(2, dim=1)
            return F, v
        return out, None

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Denoiser`."""
        F, v = self.output(x_t, t, cond)
        return self.prediction(F, v, x_t, t)

    def prediction(self, F: Tensor, v: Tensor | None, x_t: Tensor, t: Tensor) -> Prediction:
        """Reads the network's raw output, as the parameterisation says."""
        x_0, v = self.parameterization.read(F, v, self.process, t, x_t)
        return Prediction(x_t, x_0, *self.process.scales(t, x_t), v)


class FrozenDenoiser(nn.Module):
    """A trained denoiser that stays as it is: one that guides, or a teacher.

    Args:
        denoiser: The network, its process, and what its output means.
        spec: What it was trained on.
    """

    def __init__(self, denoiser: NetworkDenoiser, spec: DataSpec) -> None:
        super().__init__()
        self.denoiser, self.spec = denoiser, spec
        self.eval().requires_grad_(False)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Prediction:
        """See `Denoiser`."""
        return self.denoiser(x_t, t, cond)


class LockedNetwork(Locked):
    """The network of a trained denoiser, locked, for other networks to be built upon.

    Args:
        denoiser: The denoiser; what its output means is what theirs has to mean.
        spec: What it was trained on, if that is known.
    """

    process: Process

    def __init__(self, denoiser: NetworkDenoiser, spec: DataSpec | None) -> None:
        super().__init__(denoiser.network)
        self.spec, self.parameterization = spec, denoiser.parameterization
        object.__setattr__(self, "process", denoiser.process)  # a learned one is no part of it
