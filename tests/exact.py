"""Data whose best denoiser E[x_0 | x_t] is known in closed form, and every process to try it on."""

import math

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.denoiser import Prediction
from diffusion.parameterization import Parameterization
from diffusion.process import (
    Betas,
    Cosine,
    Learned,
    Linear,
    Process,
    RectifiedFlow,
    ScaledLinear,
    Sigmoid,
    Sohl2015,
    VariancePreserving,
    ZeroTerminal,
)


def subclasses(base: type) -> list[type]:
    """Returns all subclasses that the package defines, children of children too."""
    found = [c for child in base.__subclasses__() for c in (child, *subclasses(child))]
    return [c for c in found if c.__module__.startswith("diffusion.")]


def process(of: type, T: int) -> Process:
    """Returns a process of any length that ends in (nearly) pure noise."""
    if of is VariancePreserving:
        return VariancePreserving(torch.linspace(1, 19, T, dtype=torch.float64) / T)
    if of is Betas:
        return Betas((torch.linspace(1, 19, T, dtype=torch.float64) / T).tolist())
    if of is Linear:
        return Linear(T, 0.1 / T, 20 / T)
    if of is ScaledLinear:
        return ScaledLinear(T, 0.85 / T, 20 / T)
    if of is ZeroTerminal:
        return ZeroTerminal(ScaledLinear(T, 0.85 / T, 12 / T))
    if of in (Cosine, Sigmoid, Sohl2015, RectifiedFlow):
        return of(T)
    if of is Learned:
        return learned(T)
    raise NotImplementedError(f"how to build {of.__name__} of any length? Add it here")


def learned(T: int, beta_1: float | None = None) -> Learned:
    """Returns a learned process away from where it began."""
    it = Learned(Sohl2015(T), beta_1, rate=1.0)
    torch.nn.init.normal_(it.theta, std=0.5, generator=torch.Generator().manual_seed(0))
    return it.requires_grad_(False)


PROCESSES = [of for of in subclasses(Process) if not of.binary]  # of Gaussian noise


class Gaussian:
    """x_0 ~ N(m, c² I)."""

    def __init__(self, process: Process, mean: float = 0.7, std: float = 0.3) -> None:
        self.process, self.mean, self.std = process, mean, std

    def marginal(self, t: int) -> tuple[float, float]:
        """Returns the mean and the standard deviation of x_t."""
        alpha, sigma = self.process.alpha[t].item(), self.process.sigma[t].item()
        return alpha * self.mean, math.hypot(alpha * self.std, sigma)

    def reverse_variance(self, t: int, s: int) -> float:
        """Returns the variance of x_s given x_t, by conditioning the pair's joint Gaussian."""
        ratio = (self.process.alpha[t] / self.process.alpha[s]).item()
        (_, std_t), (_, std_s) = self.marginal(t), self.marginal(s)
        return std_s**2 - (ratio * std_s**2) ** 2 / std_t**2

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        gain = self.std**2 * alpha / ((alpha * self.std) ** 2 + sigma**2)
        return Prediction(x_t, self.mean + gain * (x_t - alpha * self.mean), alpha, sigma)


class Mixture:
    """x_0 ~ Σ_k N(m_k, c² I) / K, of one class where the condition has a label that is not −1.

    c = 0 makes it a finite data set.
    """

    def __init__(
        self, process: Process, means: Tensor, std: float, labels: Tensor | None = None
    ) -> None:
        self.process, self.means, self.std = process, means, std
        self.labels = torch.zeros(len(means)) if labels is None else labels
        self.calls: list[int] = []

    def log_likelihoods(self, x: Tensor, variance: Tensor | float, scale: Tensor | float) -> Tensor:
        """Returns log N(x; scale · m_k, variance I) up to a constant, shape (B, K)."""
        distance = (x[:, None] - scale * self.means).square().sum(-1)
        return -0.5 * distance / variance

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        self.calls.append(len(x_t))
        alpha, sigma = self.process.scales(t, x_t)
        a, s = (v if t.ndim == 0 else v.reshape(-1, 1, 1) for v in (alpha, sigma))
        variance = (a * self.std) ** 2 + s**2
        logits = self.log_likelihoods(x_t, variance.reshape(-1, 1), a)
        if cond is not None and "label" in cond.values:
            label = cond.values["label"][:, None]
            logits = logits.masked_fill((label != self.labels) & (label != -1), -torch.inf)
        each = self.means + self.std**2 * a / variance * (x_t[:, None] - a * self.means)
        x_0 = (logits.softmax(1)[..., None] * each).sum(1)
        return Prediction(x_t, x_0, alpha, sigma)


class Network(nn.Module):
    """The output that a network would have to give so that a denoiser comes out."""

    def __init__(self, denoise: Gaussian | Mixture, parameterization: Parameterization) -> None:
        super().__init__()
        self.denoise, self.parameterization = denoise, parameterization

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        x_0 = self.denoise(x_t, t).x_0
        return self.parameterization.target(x_0, self.denoise.process, t, x_t)


class Wavy(nn.Module):
    """Some smooth function of x_t and t, as an untrained network is; optionally with a variance."""

    def __init__(self, channels: int = 1, size: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(size))
        self.channels = channels
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen.append(t)
        t = t.reshape(-1, *[1] * (x_t.ndim - 1)) / 1000
        shift = 0 if label is None else 0.3 * label.reshape(t.shape)
        out = [torch.tanh((1 + i) * x_t + shift) * (0.5 + 0.5 * t) for i in range(self.channels)]
        return self.weight * torch.cat(out, dim=1)


class Quantiles:
    """A mixture on the line, whose probability-flow ODE keeps every sample at its own quantile.

    So x_s = F_s⁻¹(F_t(x_t)) with F the distribution function of a marginal, without any solver.
    """

    def __init__(self, process: Process, n: int = 25) -> None:
        means = torch.tensor([[-0.8], [0.1], [0.9]], dtype=torch.float64)
        self.data = Mixture(process, means, 0.25)
        self.levels = torch.linspace(0.02, 0.98, n, dtype=torch.float64)

    def at(self, t: int) -> Tensor:
        """Returns the quantiles of x_t by bisection, shape (n, 1)."""
        alpha, sigma = self.data.process.alpha[t], self.data.process.sigma[t]
        means, std = alpha * self.data.means[:, 0], torch.hypot(alpha * self.data.std, sigma)
        low, high = torch.full_like(self.levels, -8), torch.full_like(self.levels, 8)
        for _ in range(60):
            x = (low + high) / 2
            below = torch.special.ndtr((x[:, None] - means) / std).mean(1) < self.levels
            low, high = torch.where(below, x, low), torch.where(below, high, x)
        return low[:, None]
