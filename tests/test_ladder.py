"""From the paper of 2015 to DDPM's loss, with x_t = α_t x_{t−1} + β_t ε_t and α_t² + β_t² = 1.

Here α_t and β_t are one step's, in Ho's notation √(1 − β_t) and √β_t; ᾱ_t = α_1 … α_t and
β̄_t = √(1 − ᾱ_t²) are the tables of a `Process`.
"""

import pytest
import torch
from exact import Wavy
from torch import nn

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.objective import Simple
from diffusion.parameterization import Eps, Mean, MeanShift
from diffusion.process import Cosine, Linear

N = 400_000
CASES = [(Linear(), 2), (Linear(), 100), (Cosine(), 300), (Cosine(50), 40)]


class Scaled(nn.Module):
    def __init__(self, network, scale):
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x_t, t):
        return self.scale * self.network(x_t, t)


class Rung:
    """x_{t−1}, ε_t and x_t drawn as the forward process does, and some network ε_θ."""

    def __init__(self, process, t):
        self.process, self.t = process, torch.tensor(t)
        self.x_0 = (torch.randint(0, 2, (N, 1)) * 1.2 - 0.5).double()
        self.eps_bar, self.eps = torch.randn(2, N, 1, dtype=torch.float64)
        beta_square, _ = process.variances(self.t, self.t - 1, self.x_0)
        self.alpha = process.alpha[t] / process.alpha[t - 1]
        self.beta = beta_square.sqrt()
        self.alpha_bar, self.beta_bar = process.alpha[t], process.sigma[t]
        self.beta_bar_before = process.sigma[t - 1]
        self.before = process.alpha[t - 1] * self.x_0 + self.beta_bar_before * self.eps_bar
        self.x_t = self.alpha * self.before + self.beta * self.eps
        self.network = Wavy().double()
        self.eps_hat = self.network(self.x_t, self.t.expand(N)).detach()


@pytest.fixture(params=CASES, ids=lambda case: f"{type(case[0]).__name__}{case[0].T}-{case[1]}")
def rung(request):
    return Rung(*request.param)


def agree(difference):
    """Whether a mean is 0 up to four standard errors."""
    return abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5


def test_one_step_has_unit_variance(rung):
    torch.testing.assert_close(rung.alpha**2 + rung.beta**2, torch.tensor(1.0).double())
    torch.testing.assert_close(rung.alpha_bar**2 + rung.beta_bar**2, torch.tensor(1.0).double())


def test_reconstructing_the_image_is_reconstructing_the_noise(rung):
    """μ = (x_t − β_t ε_θ) / α_t gives ‖x_{t−1} − μ‖² = (β_t² / α_t²) ‖ε_t − ε_θ‖²."""
    mean = (rung.x_t - rung.beta * rung.eps_hat) / rung.alpha
    left = (rung.before - mean).square()
    right = (rung.beta / rung.alpha) ** 2 * (rung.eps - rung.eps_hat).square()
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-12)


def test_regressing_on_x_before_is_regressing_on_the_posterior_mean(rung):
    """E‖x_{t−1} − μ‖² = E‖μ̃ − μ‖² + β̃_t: the first rung's network is the one of `Mean`."""
    denoiser = NetworkDenoiser(rung.network, rung.process, Mean())
    noise = (rung.x_t - rung.alpha_bar * rung.x_0) / rung.beta_bar
    loss = Simple()(denoiser, rung.x_0, Condition(), rung.t.expand(N), noise).detach()
    posterior = rung.process.variances(rung.t, rung.t - 1, rung.x_0)[1]
    left = (rung.before - rung.eps_hat).square()[:, 0]
    assert agree(left - loss - posterior)


def test_mean_shift_is_the_same_network_around_doing_nothing(rung):
    """μ = α_t x_t + β_t F, so that β_t² times the loss is E‖x_{t−1} − μ‖² − β̃_t."""
    denoiser = NetworkDenoiser(rung.network, rung.process, MeanShift())
    noise = (rung.x_t - rung.alpha_bar * rung.x_0) / rung.beta_bar
    loss = Simple()(denoiser, rung.x_0, Condition(), rung.t.expand(N), noise).detach()
    posterior = rung.process.variances(rung.t, rung.t - 1, rung.x_0)[1]
    mean = rung.alpha * rung.x_t + rung.beta * rung.eps_hat
    left = (rung.before - mean).square()[:, 0]
    assert agree(left - rung.beta**2 * loss - posterior)


def test_two_noises_merge_into_one(rung):
    """α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t = β̄_t ε, and ε is independent of ω, which ε_t also needs."""
    two = rung.alpha * rung.beta_bar_before
    torch.testing.assert_close(two**2 + rung.beta**2, rung.beta_bar**2)
    eps = (two * rung.eps_bar + rung.beta * rung.eps) / rung.beta_bar
    omega = (rung.beta * rung.eps_bar - two * rung.eps) / rung.beta_bar
    torch.testing.assert_close(rung.alpha_bar * rung.x_0 + rung.beta_bar * eps, rung.x_t)
    torch.testing.assert_close((rung.beta * eps - two * omega) / rung.beta_bar, rung.eps)
    for product in (eps * omega, eps**2 - 1, omega**2 - 1, eps**2 * omega**2 - 1):
        assert agree(product)


def test_merging_gives_ddpms_loss(rung):
    """E‖ε_t − ε_θ(x_t)‖² = (β_t/β̄_t)² E‖ε − (β̄_t/β_t) ε_θ‖² + (α_t β̄_{t−1}/β̄_t)²: L_simple."""
    network = Scaled(rung.network, rung.beta_bar / rung.beta)
    denoiser = NetworkDenoiser(network, rung.process, Eps())
    fresh = torch.randn_like(rung.x_0)
    simple = Simple()(denoiser, rung.x_0, Condition(), rung.t.expand(N), fresh).detach()
    constant = (rung.alpha * rung.beta_bar_before / rung.beta_bar) ** 2
    left = (rung.eps - rung.eps_hat).square()[:, 0]
    assert agree(left - (rung.beta / rung.beta_bar) ** 2 * simple - constant)
