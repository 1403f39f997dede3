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

from typing import ClassVar, Literal

import torch
from torch import Tensor

Variance = Literal["small", "large", "learned"]


class Process:
    """A Gaussian forward process: a plain value, neither a module nor a parameter.

    Args:
        alpha: α_0 … α_T, shape (T + 1,), float64, from 1 downwards.
        sigma: σ_0 … σ_T, shape (T + 1,), float64, from 0 upwards.

    Attributes:
        binary: Whether ε is two-valued, so that x_t lies in {−1, 1}^D as x_0 does; see `Binomial`.
        learned: Whether its tables are trained, for which only the bound is a loss; see `Learned`.

    Raises:
        ValueError: If the tables do not begin with 1 and 0, or are shorter than T = 2.
    """

    binary: ClassVar[bool] = False
    learned: ClassVar[bool] = False

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

    def tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns both tables on a device, where they are kept."""
        if device not in self._on_device:
            self._on_device[device] = (self.alpha.to(device), self.sigma.to(device))
        return self._on_device[device]

    def lookup(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns α_t and σ_t in float64, broadcastable against x.

        Args:
            t: Times in 0 … T, shape () or (B,). A single time stays on the CPU, where reading it
                does not wait for the accelerator; PyTorch lets such a scalar multiply any tensor.
            x: The tensor that they will multiply, shape (B, ...).
        """
        alpha, sigma = self.tables(t.device)
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

    def prior(self, noise: Tensor) -> Tensor:
        """Returns x_T ~ p(x_T), made of standard normal noise, which it is."""
        return noise

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
            raise ValueError("variance: learned; expected a network with twice the channels out")
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
