# pyright: strict
"""Processes that are a formula, with nothing in them to be learned."""

import math

import torch

from diffusion.process.base import Process, VariancePreserving


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
