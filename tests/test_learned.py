"""β trained with frozen noise, and Σ put out beside μ: what the paper of 2015 has."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from exact import Gaussian, Wavy, learned

from diffusion import bound
from diffusion.condition import Condition
from diffusion.data import SwissRoll
from diffusion.denoiser import NetworkDenoiser
from diffusion.networks import MLP
from diffusion.objective import Simple, VariationalBound
from diffusion.parameterization import Equilibrium, MeanShift, Perturbed, V
from diffusion.pipeline import trainer
from diffusion.process import Betas, Cosine, Learned, Linear, RectifiedFlow, Sohl2015
from diffusion.sampler import Sampler
from diffusion.step import DDPM
from diffusion.systems.averages import EMA
from diffusion.systems.diffusion import Diffusion

T = 12


@pytest.mark.parametrize("start", [Sohl2015(T), Cosine(T), Linear(T, 0.01, 0.4)])
def test_it_starts_as_another_process_and_is_that_of_its_betas(start):
    it = Learned(start)
    torch.testing.assert_close(it.alpha.detach(), start.alpha, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(it.sigma.detach(), start.sigma, rtol=1e-12, atol=1e-15)
    moved = Learned(start, beta_1=0.003, rate=4.0)
    with torch.no_grad():
        moved.theta += torch.linspace(-0.5, 0.5, T - 1)
    beta_0 = (1 - (start.alpha[1:] / start.alpha[:-1]) ** 2).numpy()
    odds = beta_0 / (1 - beta_0) * np.exp(np.concatenate([[0], np.linspace(-2, 2, T - 1)]))
    betas = odds / (1 + odds)
    betas[0] = 0.003
    np.testing.assert_allclose(moved.betas.detach().numpy(), betas, rtol=1e-6)
    same = Betas(moved.betas.tolist())
    torch.testing.assert_close(moved.alpha.detach(), same.alpha)
    torch.testing.assert_close(moved.sigma.detach(), same.sigma)


@pytest.mark.parametrize("parameterization", [Perturbed(), Equilibrium(), MeanShift()])
def test_gradient_of_the_bound_is_that_of_finite_differences(parameterization):
    """Frozen noise: t and ε stay, and everything else follows θ."""
    it = learned(T, 0.002).double().requires_grad_(True)
    two = type(parameterization) is not MeanShift
    denoiser = NetworkDenoiser(Wavy(1 + two, 0.3).double(), it, parameterization)
    objective = VariationalBound("learned" if two else "small", None)
    t, x_0 = torch.arange(1, T + 1).repeat(3), torch.randn(3 * T, 2, dtype=torch.float64)
    eps = torch.randn_like(x_0)

    def loss():
        return objective(denoiser, x_0, Condition(), t, eps).mean()

    loss().backward()
    for k in (0, 1, 5, T - 2):
        values = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                it.theta[k] += h
                values.append(loss().item())
                it.theta[k] -= h
        numeric = (values[0] - values[1]) / 2e-5
        assert it.theta.grad[k].item() == pytest.approx(numeric, rel=1e-5, abs=1e-8)
    assert (it.theta.grad != 0).all()


def closed_form(alpha_bar, c):
    """The bound, in nats, of N(0, c²) data whose reverse kernels have the true mean and Σ = β_t.

    KL(N(m_q, β̃) ‖ N(m_p, β)) with E(m_q − m_p)² = a² Var(x_0 | x_t); NumPy alone.
    """
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    beta = 1 - alpha_bar / before
    noise = 1 - alpha_bar
    a = np.sqrt(before) * beta / noise
    spread = a**2 * c**2 * noise / (alpha_bar * c**2 + noise)
    small = beta * (1 - before) / noise
    kl = 0.5 * (small[1:] / beta[1:] - 1 - np.log(small[1:] / beta[1:]) + spread[1:] / beta[1:])
    first = small[1]  # where Σ at t = 1 stands, as β̃_1 is 0
    zero = 0.5 * (np.log(2 * np.pi * first) + spread[0] / first)
    return zero + kl.sum() + 0.5 * (alpha_bar[-1] * c**2 - alpha_bar[-1] - np.log(noise[-1]))


class Exact(torch.nn.Module):
    """F of `MeanShift` for N(0, c²) data and a process that moves."""

    def __init__(self, it, c):
        super().__init__()
        self.it, self.c = (it,), c

    def forward(self, x_t, t):
        it = self.it[0]
        x_0 = Gaussian(it, 0.0, self.c)(x_t, t).x_0
        return MeanShift().target(x_0, it, t, x_t)


def test_the_bound_is_the_closed_form_and_training_lowers_it():
    """Descent on β alone ends below all schedules of a family, and above the entropy."""
    c, it = 0.4, Learned(Sohl2015(T), beta_1=0.01, rate=1)
    denoiser = NetworkDenoiser(Exact(it, c), it, MeanShift())
    signs = torch.tensor([[-1.0, -1, 1, 1], [-1, 1, -1, 1]], dtype=torch.float64)
    t = torch.arange(1, T + 1).repeat_interleave(4)
    x_0, eps = c * signs[0].repeat(T)[:, None], signs[1].repeat(T)[:, None]

    def loss():
        return VariationalBound("large", None)(denoiser, x_0, Condition(), t, eps).mean()

    def expected():
        alpha_bar = np.cumprod(1 - it.betas.detach().numpy())
        return closed_form(alpha_bar, c) / math.log(2)

    before = loss().item()
    assert before == pytest.approx(expected(), rel=1e-9)
    optimizer = torch.optim.Adam([it.theta], 0.1)
    for _ in range(80):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    entropy = 0.5 * math.log2(2 * math.pi * math.e * c**2)
    after = loss().item()
    assert after == pytest.approx(expected(), rel=1e-9)
    assert entropy < after < before - 0.02
    for last in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        for power in (0.5, 1, 2, 3):
            beta = 0.01 + (last - 0.01) * np.linspace(0, 1, T) ** power
            assert after < closed_form(np.cumprod(1 - beta), c) / math.log(2)


@pytest.mark.parametrize("of", [Sohl2015(40), Cosine(40)])
def test_sigma_is_a_perturbation_of_the_forward_kernel(of):
    """log Σ = log sigmoid(f/√T + logit β_t), for any f, as place between log β̃ and log β."""
    t = torch.arange(1, 41)
    x_t, F, f = torch.randn(3, 40, 2, dtype=torch.float64)
    beta = 1 - (of.alpha[1:] / of.alpha[:-1]).numpy()[:, None] ** 2
    odds = beta / (1 - beta) * np.exp(f.numpy() / 40**0.5)
    sigma = odds / (1 + odds)
    ratio = (of.alpha[1:] / of.alpha[:-1]).numpy()[:, None]
    means = {
        Perturbed: ratio * x_t.numpy() + np.sqrt(beta) * F.numpy(),
        Equilibrium: (x_t - F).numpy() * (1 - sigma) + F.numpy(),
    }
    for kind, mean in means.items():
        x_0, v = kind().read(F, f, of, t, x_t)
        a, b = of.posterior_weights(t, t - 1, x_t)
        np.testing.assert_allclose((a * x_0 + b * x_t).numpy(), mean, rtol=1e-9, atol=1e-12)
        log_variance = of.reverse_log_variance(t, t - 1, x_t, "learned", v)
        np.testing.assert_allclose(log_variance.exp().numpy(), sigma, rtol=1e-9)
        assert kind().read(F, None, of, t, x_t)[1] is None


def test_it_trains_resumes_and_is_averaged_with_the_network(tmp_path):
    def model():
        torch.manual_seed(0)
        network = MLP(2, 8, 1, out_channels=4)
        parts = Learned(Sohl2015(T), 0.01), Perturbed(), VariationalBound("learned", None)
        return Diffusion(network, *parts, Sampler(DDPM("learned")))

    def fit(module, steps, path=None):
        ema = EMA(0.5)
        run = trainer(tmp_path, ema, max_steps=steps, accelerator="cpu", limit_val_batches=0)
        run.fit(module, SwissRoll(batch_size=32), ckpt_path=path, weights_only=False)
        run.save_checkpoint(tmp_path / f"{steps}.ckpt", weights_only=False)
        return module.process.theta.detach().clone(), ema.average["denoiser.process.theta"]

    theta, average = fit(model(), 6)
    assert (theta != 0).all()
    assert not torch.equal(theta, average)
    fit(model(), 3)
    again, again_average = fit(model(), 6, tmp_path / "3.ckpt")
    assert torch.equal(theta, again)
    assert torch.equal(average, again_average)
    saved = torch.load(tmp_path / "6.ckpt", weights_only=True)
    names = [name for name in saved["state_dict"] if "theta" in name]
    assert names == ["denoiser.process.theta"]
    assert torch.equal(saved["state_dict"][names[0]], average)
    other = copy.deepcopy(model())
    other.load_state_dict(saved["state_dict"])
    assert torch.equal(other.process.theta, average)
    assert other.process is other.denoiser.process
    other.spec = SwissRoll().spec
    assert other.generate({}, seeds=[0, 1]).isfinite().all()
    back = pickle.loads(pickle.dumps(other.process))
    assert torch.equal(back.alpha, other.process.alpha)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Learned(RectifiedFlow(T)), "process.process: RectifiedFlow; expected one with α²"),
        (lambda: Learned(Sohl2015(T), 0.0), "process.beta_1: 0.0; expected 0 < β_1 < 1"),
        (lambda: Learned(Sohl2015(T), 1.0), "process.beta_1: 1.0; expected"),
        (
            lambda: Diffusion(MLP(), Learned(Sohl2015(T)), V(), Simple(), Sampler(DDPM())),
            "model.objective: Simple; expected VariationalBound, the only loss for Learned",
        ),
        (lambda: Learned(Sohl2015(T), rate=0.0), "process.rate: 0.0; expected a positive number"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_prior_term_moves_with_beta():
    it = Learned(Sohl2015(T))
    bound.prior_term(it, torch.ones(3, 2)).sum().backward()
    assert (it.theta.grad != 0).all()
