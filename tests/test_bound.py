import math

import numpy as np
import pytest
import torch
from exact import PROCESSES, Gaussian, process
from scipy.special import log_ndtr, ndtr

from diffusion import bound
from diffusion.denoiser import Prediction
from diffusion.process import Cosine, Linear, RectifiedFlow, Sohl2015, ZeroTerminal

# All terms for continuous Gaussian data are quadratic in (x_0, ε), so that the mean over these four
# points, whose first and second moments are those of N(0, I), is the expectation itself.
SIGNS = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]], dtype=torch.float64)


def entropy(std):
    return 0.5 * math.log2(2 * math.pi * math.e * std**2)


def exact_v(data, t):
    """Where the true variance of x_{t−1} given x_t lies between log β̃ (0) and log β (1)."""
    it, x, s = data.process, torch.zeros(1, 1, dtype=torch.float64), t - 1
    ends = [it.reverse_log_variance(t, s, x, "learned", x + v) for v in (0, 1)]
    log_variance = math.log(data.reverse_variance(int(t), int(s)))
    return ((log_variance - ends[0]) / (ends[1] - ends[0])).item()


def expected_bound(data, variance):
    """The expectation of the bound over the data and the noise, exactly."""
    it = data.process
    x_0 = data.mean + data.std * SIGNS[0][:, None]
    total = bound.prior_term(it, x_0).mean()
    for t in torch.arange(1, it.T + 1):
        pred = data(it.diffuse(x_0, t, SIGNS[1][:, None]), t)
        v = torch.full_like(x_0, exact_v(data, t)) if variance == "learned" else None
        pred = Prediction(pred.x_t, pred.x_0, pred.alpha, pred.sigma, v)
        times = t.expand(4)
        total += bound.term(pred, it, x_0, times, variance, levels=None).mean()
    return total.item()


@pytest.mark.parametrize("T", [20, 60])
@pytest.mark.parametrize("of", PROCESSES)
def test_tight_for_gaussian_data(of, T):
    """With the true reverse process only p(x_T) can be wrong: L = H + KL(q(x_T) ‖ N(0, 1))."""
    data = Gaussian(process(of, T), mean=0.4, std=0.7)
    mean, std = data.marginal(T)
    prior = 0.5 * (std**2 + mean**2 - 1 - math.log(std**2)) / math.log(2)
    assert expected_bound(data, "learned") == pytest.approx(entropy(0.7) + prior, abs=1e-9)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("it", [Linear(60, 1e-3, 0.3), Cosine(60), Sohl2015(60)])
def test_what_a_wrong_variance_costs(it, variance):
    """For N(0, 1) the true variance is β_t; another Σ costs ½ (r − 1 − log r) with r = β_t / Σ."""
    alpha_bar = (it.alpha**2).numpy()
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    posterior = beta * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    posterior[0] = posterior[1]
    ratio = beta / posterior
    cost = (ratio - 1 - np.log(ratio)) / 2 / math.log(2)
    cost = cost.sum() if variance == "small" else cost[0]
    assert expected_bound(Gaussian(it, 0.0, 1.0), variance) == pytest.approx(entropy(1.0) + cost)


@pytest.mark.parametrize(("mean_of_squares", "bits"), [(1 / 3, 9.7e-6), (1.0, 2.9e-5)])
def test_prior_term_of_ddpm(mean_of_squares, bits):
    x_0 = torch.full((2, 3, 4, 4), mean_of_squares**0.5)
    terms = bound.prior_term(Linear(), x_0)
    assert terms.shape == (2,)
    assert terms.dtype == torch.float32
    assert ((terms - bits).abs() < 0.5e-6).all() or ((terms / bits - 1).abs() < 0.02).all()
    alpha_bar = 4.0358298e-5
    exact = (alpha_bar * (mean_of_squares - 1) - math.log1p(-alpha_bar)) / 2 / math.log(2)
    torch.testing.assert_close(terms, torch.full((2,), exact), rtol=1e-5, atol=0)


@pytest.mark.parametrize("it", [ZeroTerminal(Linear()), RectifiedFlow()])
def test_prior_term_is_zero_without_signal(it):
    assert (bound.prior_term(it, torch.randn(3, 2)) == 0).all()


def test_kl_is_an_expected_log_ratio():
    """Against Monte Carlo, and against torch.distributions."""
    mean_q, log_var_q, mean_p, log_var_p = torch.randn(4, 5, 1, dtype=torch.float64)
    kl = bound.kl_normal(mean_q, log_var_q, mean_p, log_var_p)
    q = torch.distributions.Normal(mean_q, (0.5 * log_var_q).exp())
    p = torch.distributions.Normal(mean_p, (0.5 * log_var_p).exp())
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, p))
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(bound.log_normal(x, mean_q, log_var_q), q.log_prob(x))
    x = mean_q + (0.5 * log_var_q).exp() * torch.randn(5, 200_000, dtype=torch.float64)
    ratio = bound.log_normal(x, mean_q, log_var_q) - bound.log_normal(x, mean_p, log_var_p)
    error = ratio.std(1, keepdim=True) / 200_000**0.5
    assert ((ratio.mean(1, keepdim=True) - kl).abs() < 4 * error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("std", [1e-3, 0.02, 0.3, 3.0])
def test_discretised_normal_sums_to_one(levels, std, dtype):
    x = torch.linspace(-1, 1, levels, dtype=dtype)
    mean = torch.linspace(-1.7, 1.7, 41, dtype=dtype)[:, None]
    log_var = torch.tensor(2 * math.log(std), dtype=dtype)
    log_p = bound.log_discretized_normal(x, mean, log_var, levels)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(
        log_p.exp().sum(1), torch.ones(41, dtype=dtype), atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("std", [1e-3, 0.02, 0.3, 3.0])
def test_discretised_normal_is_a_difference_of_normal_cdfs(std):
    levels = 256
    x = np.linspace(-1, 1, levels)
    mean = np.linspace(-1.7, 1.7, 41)[:, None]
    a, b = (x - 1 / 255 - mean) / std, (x + 1 / 255 - mean) / std
    a[:, 0], b[:, -1] = -np.inf, np.inf
    swap = a > 0
    a, b = np.where(swap, -b, a), np.where(swap, -a, b)
    p = ndtr(b) - ndtr(a)
    value = bound.log_discretized_normal(
        torch.from_numpy(x).expand(41, levels),
        torch.from_numpy(mean),
        torch.tensor(2 * math.log(std), dtype=torch.float64),
        levels,
    ).numpy()
    ok = p > 1e-280
    np.testing.assert_allclose(value[ok], np.log(p[ok]), rtol=1e-7, atol=1e-7)
    # Farther out one bin is its nearer edge, to a relative e^{−40·δ/σ}.
    far = (p <= 1e-280) & (b * (b - a) < -40)
    np.testing.assert_allclose(value[far], log_ndtr(b)[far], rtol=1e-12)


@pytest.mark.parametrize("mean", [-1000.0, -30.0, -2.0, 0.0, 0.3, 2.0, 30.0, 1000.0])
@pytest.mark.parametrize("log_var", [-12.0, -9.8, -4.0, 2.0])
def test_discretised_normal_is_finite_and_pulls_towards_the_data(mean, log_var):
    x = torch.tensor([-1.0, -0.2, 0.2, 1.0]).mul(255).round().div(255)
    means = torch.full((4,), mean, requires_grad=True)
    log_vars = torch.full((4,), log_var, requires_grad=True)
    log_p = bound.log_discretized_normal(x, means, log_vars, 256)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert (log_p <= 0).all()
    assert means.grad.isfinite().all()
    assert log_vars.grad.isfinite().all()
    if abs(mean) >= 2:
        inner = x.abs() < 1
        assert (means.grad[inner] * (x - mean).sign()[inner] > 0).all()
        # Far out it is −(x − μ)² / 2σ² at the bin's nearer edge, with the derivative (x − μ) / σ².
        if 50 < abs(mean) * math.exp(-0.5 * log_var) < 1000:
            slope = (x - mean).sub(1 / 255 * (x - mean).sign()) * math.exp(-log_var)
            torch.testing.assert_close(means.grad[inner], slope[inner], rtol=0.05, atol=0)


def test_first_term_is_the_likelihood_and_others_are_not():
    """t = 1 uses p(x_0 | x_1) with DDPM's clipped variance, whatever t the others have."""
    it, x_0 = Linear(), torch.linspace(-1, 1, 256).reshape(1, -1).expand(3, -1)
    t = torch.tensor([1, 2, 1])
    x_t = it.diffuse(x_0, t, torch.randn_like(x_0))
    alpha, sigma = it.scales(t, x_t)
    pred = Prediction(x_t, x_0 + 0.01 * torch.randn_like(x_0), alpha, sigma)
    value = bound.term(pred, it, x_0, t, "small", 256)
    for i in (0, 2):
        std = math.exp(-9.816725 / 2)
        a = (x_0[i] - 1 / 255 - pred.x_0[i]).double().numpy() / std
        b = (x_0[i] + 1 / 255 - pred.x_0[i]).double().numpy() / std
        a[0], b[-1] = -np.inf, np.inf
        assert value[i].item() == pytest.approx(-np.log2(ndtr(b) - ndtr(a)).mean(), rel=1e-3)
    a, _ = it.posterior_weights(t, t - 1, x_t)
    error = (a[1] * (x_0[1] - pred.x_0[1])).square() / 2 / 5.4531877e-5
    assert value[1].item() == pytest.approx(error.mean().item() / math.log(2), rel=1e-3)


def test_gradients_are_finite_at_every_time():
    """torch.where passes NaN of the branch not taken; an untrained network must not meet one."""
    for it in (Linear(), Cosine(), ZeroTerminal(Linear()), RectifiedFlow()):
        t = torch.arange(1, it.T + 1)
        x_0 = torch.randint(0, 256, (it.T, 4)) / 127.5 - 1
        x_t = it.diffuse(x_0, t, torch.randn_like(x_0))
        x_0_hat = (3 * torch.randn(it.T, 4)).requires_grad_()
        v = torch.rand(it.T, 4).requires_grad_()
        pred = Prediction(x_t, x_0_hat, *it.scales(t, x_t), v)
        value = bound.term(pred, it, x_0, t, "learned", 256)
        assert value.isfinite().all()
        value.sum().backward()
        assert x_0_hat.grad.isfinite().all()
        assert v.grad.isfinite().all()


def test_bound_on_grey_values():
    """Discretised N(0.1, 0.25²) with the Gaussian's own denoiser: just above the entropy."""
    levels, it = 256, Cosine(300)
    data = Gaussian(it, 0.1, 0.25)
    grid = torch.linspace(-1, 1, levels, dtype=torch.float64)
    log_p = bound.log_discretized_normal(
        grid, torch.tensor(0.1).double(), torch.tensor(2 * math.log(0.25)).double(), levels
    )
    probability = log_p.exp()
    nodes, weights = (torch.from_numpy(w) for w in np.polynomial.hermite_e.hermegauss(24))
    weights = weights / weights.sum()
    x_0, eps = grid.repeat_interleave(24)[:, None], nodes.repeat(levels)[:, None]
    joint = probability.repeat_interleave(24) * weights.repeat(levels)
    total = (joint * bound.prior_term(it, x_0)).sum()
    for t in torch.arange(1, it.T + 1):
        pred = data(it.diffuse(x_0, t, eps), t)
        v = torch.full_like(x_0, exact_v(data, t))
        pred = Prediction(pred.x_t, pred.x_0, pred.alpha, pred.sigma, v)
        total += (joint * bound.term(pred, it, x_0, t.expand(len(x_0)), "learned", levels)).sum()
    bits = -(probability * log_p).sum() / math.log(2)
    assert bits < total < bits + 0.02
