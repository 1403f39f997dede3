"""The stochastic form of DPM-Solver++ on Gaussian data, where every moment is known."""

from itertools import pairwise

import pytest
import torch
from exact import PROCESSES, Gaussian, process

from diffusion.process import Cosine, Linear, RectifiedFlow
from diffusion.sampler import Sampler
from diffusion.step import DDPM, DPMSolver


def moments(step, data, times):
    """The exact mean and standard deviation of x_s, for x_t of the right marginal.

    For Gaussian data a solver is affine in x_t and in each step's noise; a row of the batch finds
    each of the coefficients.
    """
    it, step, n = data.process, step.begin(), len(times) - 1
    x, rows = torch.zeros(n + 2, 1, dtype=torch.float64), iter(range(2, n + 2))
    x[1] = 1

    def randn_like(x):
        z = torch.zeros_like(x)
        z[next(rows)] = 1
        return z

    for t, s in pairwise(times):
        x = step(data, it, x, t, s, randn_like)
    zero, *others = x[:, 0]
    slope, *noise = torch.stack(others) - zero
    mean, std = data.marginal(int(times[0]))
    variance = (slope * std) ** 2 + torch.stack(noise).square().sum()
    return (zero + slope * mean).item(), variance.sqrt().item()


def error(step, data, times):
    mean, std = moments(step, data, times)
    true_mean, true_std = data.marginal(int(times[-1]))
    return abs(mean - true_mean) + abs(std - true_std)


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.5])
def test_any_amount_of_noise_gives_the_data(of, eta):
    data = Gaussian(process(of, 2000), 0.6, 0.4)
    errors = []
    for steps in (20, 80):
        times = Sampler(DPMSolver(), steps, spacing="log_snr").times(data.process)
        errors.append(error(DPMSolver(eta=eta), data, times))
        if eta == 1:  # the second order pays
            assert errors[-1] < 0.5 * error(DDPM(), data, times)
    assert errors[0] < 0.05, errors
    assert errors[1] < 0.01, errors
    assert errors[1] < 0.3 * errors[0], errors


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("it", [Linear(32_000, 0.1 / 32_000, 20 / 32_000), RectifiedFlow(32_000)])
def test_moments_are_of_second_order(it, eta):
    data, errors = Gaussian(it, 0.6, 0.4), []
    for n in (40, 80, 160):
        times = torch.linspace(25_600, 3_200, n + 1, dtype=torch.float64).round().long()
        errors.append(error(DPMSolver(eta=eta), data, times))
    slopes = (torch.tensor(errors[:-1]) / torch.tensor(errors[1:])).log2()
    assert (slopes > 1.7).all(), (slopes, errors)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_an_exact_estimate_gives_exact_marginals(eta):
    """With x̂_0 = x_0 the noise that is left and the noise that is added make up σ_s, any step."""
    it = Cosine(40)
    data = Gaussian(it, 0.8, 0.0)
    for times in (torch.tensor([38, 20, 7, 2]), torch.tensor([40, 3])):
        mean, std = moments(DPMSolver(eta=eta), data, times)
        assert mean == pytest.approx(0.8 * it.alpha[times[-1]].item(), rel=1e-9)
        assert std == pytest.approx(it.sigma[times[-1]].item(), rel=1e-9)


def test_samples_have_the_datas_covariance():
    """Not only its variance: two coordinates of one sample stay independent."""
    it, n = Cosine(), 40_000
    data, x_T = Gaussian(it, 0.4, 0.6), torch.randn(n, 2, dtype=torch.float64)
    x_0 = Sampler(DPMSolver(eta=1.0), 100, spacing="log_snr")(data, it, x_T)
    assert ((x_0.mean(0) - 0.4).abs() < 4 * 0.6 / n**0.5 + 0.002).all()
    cov = torch.cov(x_0.T)
    assert (cov.diagonal() / 0.36 - 1).abs().max() < 4 * (2 / n) ** 0.5 + 0.01
    assert cov[0, 1].abs() < 4 * 0.36 / n**0.5
