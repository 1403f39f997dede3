# pyright: strict
"""The forward process: q(x_t | x_0) = N(α_t x_0, σ_t² I) for t = 0 … T, with α_0 = 1 and σ_0 = 0.

Two tables, α and σ in float64, are all that is kept; everything else is computed from them.
For s < t, with α_{t|s} = α_t / α_s and σ²_{t|s} = σ_t² − α_{t|s}² σ_s²:

    q(x_t | x_s)      = N(α_{t|s} x_s, σ²_{t|s} I)
    q(x_s | x_t, x_0) = N(a x_0 + b x_t, β̃ I),   a = α_s σ²_{t|s} / σ_t²,  b = α_{t|s} σ_s² / σ_t²,
                                                  β̃ = σ²_{t|s} σ_s² / σ_t²

(DDPM, eq. 4, 6 and 7, for any pair of times and without assuming α² + σ² = 1; Kingma et al. 2021,
"Variational diffusion models", appendix A.) In Ho's notation α_t is √ᾱ_t, σ_t is √(1 − ᾱ_t) and
σ²_{t|t−1} is β_t.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Variance = Literal["small", "large", "learned"]


class Process:
    """A Gaussian forward process: a plain value, neither a module nor a parameter.

    Args:
        alpha: α_0 … α_T, shape (T + 1,), float64, from 1 downwards.
        sigma: σ_0 … σ_T, shape (T + 1,), float64, from 0 upwards.

    Raises:
        ValueError: If the tables do not begin with 1 and 0, or are shorter than T = 2.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        if alpha.shape != sigma.shape or len(alpha) < 3:
            raise ValueError(f"process: T is {len(alpha) - 1}; expected at least 2 times")
        if alpha[0] != 1 or sigma[0] != 0:
            raise ValueError(f"process: α_0 = {alpha[0]}, σ_0 = {sigma[0]}; expected 1 and 0")
        if not (alpha.diff() <= 0).all() or not (sigma.diff() >= 0).all():
            raise ValueError("process: its α or σ; expected α to fall and σ to rise with t")
        self.alpha, self.sigma = alpha.double(), sigma.double()
        self._on_device = {self.alpha.device: (self.alpha, self.sigma)}

    def __getstate__(self) -> dict[str, object]:
        """Leaves the copies on accelerators behind, for machines that have none."""
        return {**vars(self), "_on_device": {self.alpha.device: (self.alpha, self.sigma)}}

    @property
    def T(self) -> int:
        """The last time."""
        return len(self.alpha) - 1

    def lookup(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns α_t and σ_t in float64, broadcastable against x.

        Args:
            t: Times in 0 … T, shape () or (B,). A single time stays on the CPU, where reading it
                does not wait for the accelerator; PyTorch lets such a scalar multiply any tensor.
            x: The tensor that they will multiply, shape (B, ...).
        """
        if t.device not in self._on_device:
            self._on_device[t.device] = (self.alpha.to(t.device), self.sigma.to(t.device))
        alpha, sigma = self._on_device[t.device]
        if t.ndim == 0:
            return alpha[t], sigma[t]
        shape = (-1, *[1] * (x.ndim - 1))
        return alpha[t].reshape(shape), sigma[t].reshape(shape)

    def scales(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns α_t and σ_t in x's dtype; arguments as for `lookup`."""
        alpha, sigma = self.lookup(t, x)
        return alpha.to(x.dtype), sigma.to(x.dtype)

    def diffuse(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Returns x_t = α_t x_0 + σ_t ε."""
        alpha, sigma = self.scales(t, x_0)
        return alpha * x_0 + sigma * eps

    def snr(self, t: Tensor, x: Tensor) -> Tensor:
        """Returns the signal-to-noise ratio α_t² / σ_t², t ≥ 1, in x's dtype."""
        alpha, sigma = self.lookup(t, x)
        return (alpha / sigma).square().to(x.dtype)

    def _variances(self, t: Tensor, s: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.lookup(t, x), self.lookup(s, x)
        forward = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
        return forward, forward * (sigma_s / sigma_t) ** 2

    def variances(self, t: Tensor, s: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns σ²_{t|s} and β̃_{t|s}, in x's dtype, for times 0 ≤ s < t ≤ T."""
        forward, posterior = self._variances(t, s, x)
        return forward.to(x.dtype), posterior.to(x.dtype)

    def posterior_weights(self, t: Tensor, s: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a and b, the weights of x_0 and x_t in the mean of q(x_s | x_t, x_0)."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.lookup(t, x), self.lookup(s, x)
        forward, _ = self._variances(t, s, x)
        a, b = alpha_s * forward / sigma_t**2, alpha_t / alpha_s * (sigma_s / sigma_t) ** 2
        return a.to(x.dtype), b.to(x.dtype)

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and the variance β̃ of q(x_s | x_t, x_0) (DDPM, eq. 6 and 7)."""
        a, b = self.posterior_weights(t, s, x_t)
        return a * x_0 + b * x_t, self.variances(t, s, x_t)[1]

    def reverse_log_variance(
        self, t: Tensor, s: Tensor, x: Tensor, variance: Variance, v: Tensor | None = None
    ) -> Tensor:
        """Returns log Σ of the reverse transition p(x_s | x_t).

        "small" is log β̃ and "large" is log σ²_{t|s} (DDPM, section 3.2); "learned" is
        v log σ²_{t|s} + (1 − v) log β̃ (Improved DDPM, eq. 15). β̃ is 0 for s = 0, so the value of
        the next transition stands in there, β̃_{2t|t}, as in both papers' code.

        Args:
            t: Times, shape () or (B,).
            s: Earlier times, the same shape.
            x: Any tensor of the samples' shape and dtype, (B, ...).
            variance: Which of the three.
            v: For "learned", the place between log β̃ (0) and log σ²_{t|s} (1), x's shape.

        Raises:
            ValueError: If the variance is to be learned and the network does not predict it.
        """
        forward, posterior = self._variances(t, s, x)
        later = self._variances((2 * t).clamp(max=self.T), t, x)[1]
        small = torch.where((s == 0).reshape(posterior.shape), later, posterior)
        if variance == "small":
            return small.log().to(x.dtype)
        if variance == "large":
            return torch.where((s == 0).reshape(small.shape), small, forward).log().to(x.dtype)
        if v is None:
            raise ValueError("variance: 'learned' needs a network with twice the channels out")
        log_small, log_large = small.log().to(x.dtype), forward.log().to(x.dtype)
        return v * log_large + (1 - v) * log_small


class VariancePreserving(Process):
    """α_t² = ∏_{u ≤ t} (1 − β_u), σ_t² = 1 − α_t² (DDPM, eq. 4).

    Args:
        betas: β_1 … β_T, shape (T,), float64, in (0, 1].
    """

    def __init__(self, betas: Tensor) -> None:
        if not ((betas > 0) & (betas <= 1)).all():
            low, high = betas.min().item(), betas.max().item()
            raise ValueError(f"process: β lies in {low:g} … {high:g}; expected 0 < β ≤ 1")
        alpha_bar = torch.cat([betas.new_ones(1), torch.cumprod(1 - betas, 0)])
        super().__init__(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


class Betas(VariancePreserving):
    """β_t one by one, for a process that has no formula here.

    Args:
        betas: β_1 … β_T, each in (0, 1].
    """

    def __init__(self, betas: list[float]) -> None:
        super().__init__(torch.tensor(betas, dtype=torch.float64))


class Linear(VariancePreserving):
    """β_t linear from β_1 to β_T (DDPM, section 4).

    Args:
        T: The number of times.
        beta_1: β_1.
        beta_T: β_T. For another T than 1000, published code scales both by 1000 / T.
    """

    def __init__(self, T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> None:
        super().__init__(torch.linspace(beta_1, beta_T, _counted(T), dtype=torch.float64))


class ScaledLinear(VariancePreserving):
    """√β_t linear (latent diffusion and Stable Diffusion, whose code calls it "linear")."""

    def __init__(self, T: int = 1000, beta_1: float = 0.00085, beta_T: float = 0.012) -> None:
        super().__init__(
            torch.linspace(beta_1**0.5, beta_T**0.5, _counted(T), dtype=torch.float64) ** 2
        )


class Cosine(VariancePreserving):
    """α_t² ∝ cos²((t/T + s) / (1 + s) · π/2), β_t at most 0.999 (Improved DDPM, eq. 17)."""

    def __init__(self, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> None:
        u = torch.arange(_counted(T) + 1, dtype=torch.float64) / T
        f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta))


class Sigmoid(VariancePreserving):
    """α_t² falls like a logistic curve from `start` to `end` (Jabri et al. 2022, algorithm 1)."""

    def __init__(
        self,
        T: int = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        max_beta: float = 0.999,
    ) -> None:
        u = torch.arange(_counted(T) + 1, dtype=torch.float64) / T
        first, last = torch.tensor([start / tau, end / tau], dtype=torch.float64).sigmoid()
        f = (last - ((u * (end - start) + start) / tau).sigmoid()) / (last - first)
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta))


class Sohl2015(VariancePreserving):
    """β_t = 1 / (T − t + 1) up to β_T = 1/2: each step destroys an equal share of the signal.

    Sohl-Dickstein et al. 2015, section 2.4.1; the authors' code uses 1 / linspace(T, 2, T).
    """

    def __init__(self, T: int = 1000) -> None:
        super().__init__(1 / torch.linspace(T, 2, _counted(T), dtype=torch.float64))


class RectifiedFlow(Process):
    """x_t = (1 − t/T) x_0 + (t/T) ε (Liu et al. 2022, eq. 1; Lipman et al. 2022, eq. 20)."""

    def __init__(self, T: int = 1000) -> None:
        sigma = torch.arange(_counted(T) + 1, dtype=torch.float64) / T
        super().__init__(1 - sigma, sigma)


class ZeroTerminal(Process):
    """Another process's α, shifted and scaled so that α_T = 0 (Lin et al. 2023, algorithm 1).

    Needs a parameterisation that is defined without signal (`V`, `X0`, `Velocity`) and a grid of
    times that contains T ("trailing" or "linspace").

    Args:
        process: The variance-preserving process to rescale; α_1 stays what it is.
    """

    def __init__(self, process: Process) -> None:
        first, last = process.alpha[1], process.alpha[-1]
        alpha = torch.cat([process.alpha[:1], (process.alpha[1:] - last) * first / (first - last)])
        super().__init__(alpha, (1 - alpha**2).sqrt())


def _counted(T: int) -> int:
    if T < 2:
        raise ValueError(f"process: T is {T}; expected at least 2 times")
    return T
