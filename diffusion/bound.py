# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The variational bound on −log p(x_0), term by term, in bits/dim (DDPM, eq. 5).

    L = L_T + Σ_{t = 2 … T} L_{t−1} + L_0
    L_T     = KL(q(x_T | x_0) ‖ N(0, I))
    L_{t−1} = KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t))
    L_0     = −log p(x_0 | x_1)

p(x_s | x_t) = N(μ, Σ), with μ the posterior's mean at x̂_0. Images with n grey levels get a
discretised Gaussian in L_0 (DDPM, eq. 13); continuous data gets the density itself. The bits of a
`Binomial` process have Bernoulli distributions of the same means, and p(x_T) = B(½).
"""

import math

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.process import Process, Variance


def kl_normal(mean_q: Tensor, log_var_q: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """Returns KL(N(μ_q, σ_q²) ‖ N(μ_p, σ_p²)) elementwise, in nats."""
    ratio = log_var_q - log_var_p
    return 0.5 * (ratio.exp() - 1 - ratio + (mean_q - mean_p).square() * torch.exp(-log_var_p))


def kl_bernoulli(mean_q: Tensor, mean_p: Tensor) -> Tensor:
    """Returns KL(q ‖ p) elementwise, in nats, of bits −1 and 1 with these means, in float64.

    With a mean of −1 or 1 it is −log p of that bit. A p that excludes what q does not costs at most
    the 37 nats that float64 can tell from certainty.
    """
    q, p = (1 + mean_q.double()) / 2, (1 + mean_p.double()) / 2
    tiny = torch.finfo(p.dtype).eps / 2
    rest = torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q)
    return rest - torch.xlogy(q, p.clamp(min=tiny)) - torch.xlogy(1 - q, (1 - p).clamp(min=tiny))


def log_normal(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Returns log N(x; μ, σ²) elementwise, in nats."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (x - mean).square() * torch.exp(-log_var))


def log_discretized_normal(x: Tensor, mean: Tensor, log_var: Tensor, levels: int) -> Tensor:
    """Returns the log-probability that N(μ, σ²) gives to x's bin, elementwise, in nats.

    The bins lie around the grey values −1, −1 + 2δ, …, 1, with δ = 1 / (levels − 1); the outermost
    ones are open (DDPM, eq. 13). It is log(Φ(b) − Φ(a)), exact in both tails, where DDPM's code has
    an approximation of Φ and a floor.

    Args:
        x: Grey values in [−1, 1].
        mean: μ, x's shape.
        log_var: log σ², broadcastable.
        levels: The number of grey values.
    """
    far = 1e4
    delta, scale = 1 / (levels - 1), torch.exp(-0.5 * log_var)
    a = ((x - delta - mean) * scale).masked_fill(x < -1 + delta, -far)
    b = ((x + delta - mean) * scale).masked_fill(x > 1 - delta, far)
    flip = a + b > 0  # by symmetry, only the left tail is needed, where log Φ is precise
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    log_a: Tensor = torch.special.log_ndtr(a)
    log_b: Tensor = torch.special.log_ndtr(b)
    return log_b + torch.log(-torch.expm1((log_a - log_b).clamp(max=-1e-12)))


def bits_per_dim(nats: Tensor) -> Tensor:
    """Averages over all but the first dimension and divides by log 2: (B, ...) → (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


def prior_term(process: Process, x_0: Tensor) -> Tensor:
    """Returns L_T in bits/dim, shape (B,); all that can be learned in it is a `Learned` process."""
    alpha, sigma = process.lookup(torch.full((1,), process.T, device=x_0.device), x_0)
    if process.binary:
        mean = alpha * x_0
        return bits_per_dim(kl_bernoulli(mean, torch.zeros_like(mean))).to(x_0.dtype)
    mean, log_var = alpha * x_0.double(), (2 * sigma.log()).expand(x_0.shape)
    zero = torch.zeros_like(mean)
    return bits_per_dim(kl_normal(mean, log_var, zero, zero)).to(x_0.dtype)


def term(
    pred: Prediction,
    process: Process,
    x_0: Tensor,
    t: Tensor,
    variance: Variance,
    levels: int | None,
) -> Tensor:
    """Returns L_{t−1} for t ≥ 2 and L_0 for t = 1, in bits/dim, shape (B,).

    Args:
        pred: The prediction at x_t and t.
        process: The forward process.
        x_0: The data, (B, ...), on its grey values if there are any.
        t: Times in 1 … T, shape (B,).
        variance: Σ of the reverse transition; see `Process.reverse_log_variance`. Bits have none.
        levels: The number of grey values, or None for continuous data; of no matter for bits.
    """
    s = t - 1
    if process.binary:
        x_0, x_t = x_0.double(), pred.x_t.double()
        a, b = process.posterior_weights(t, s, x_0)
        kl = kl_bernoulli(a * x_0 + b * x_t, a * pred.x_0 + b * x_t)  # at t = 1, −log p(x_0 | x_1)
        return bits_per_dim(kl).to(pred.x_t.dtype)
    a, b = process.posterior_weights(t, s, x_0)
    log_var_q = process.reverse_log_variance(t, s, x_0, "small").expand(x_0.shape)
    log_var_p = process.reverse_log_variance(t, s, x_0, variance, pred.v).expand(x_0.shape)
    mean_q, mean_p = a * x_0 + b * pred.x_t, a * pred.x_0 + b * pred.x_t
    kl = kl_normal(mean_q, log_var_q, mean_p, log_var_p)
    if levels is None:
        nll = -log_normal(x_0, mean_p, log_var_p)
    else:
        nll = -log_discretized_normal(x_0, mean_p, log_var_p, levels)
    return bits_per_dim(torch.where((t == 1).reshape(-1, *[1] * (x_0.ndim - 1)), nll, kl))
