import pytest
import torch
from exact import PROCESSES, process, subclasses
from torch import nn

from diffusion.denoiser import NetworkDenoiser
from diffusion.parameterization import X0, Eps, Mean, Parameterization, V, Velocity, check
from diffusion.process import Cosine, Linear, RectifiedFlow, ZeroTerminal

PARAMETERIZATIONS = [of for of in subclasses(Parameterization) if not of.binary]


def data(it, dtype=torch.float64):
    """Returns t = 1 … T, x_0, ε, x_t and the tables at t."""
    t = torch.arange(1, it.T + 1)
    x_0, eps = torch.randn(2, it.T, 3, dtype=dtype)
    alpha, sigma = it.alpha[1:, None].to(dtype), it.sigma[1:, None].to(dtype)
    return t, x_0, eps, alpha * x_0 + sigma * eps, alpha, sigma


def documented(it, x_0, eps, x_t):
    """What each class says that it estimates, from the tables alone."""
    alpha, sigma = it.alpha[1:, None], it.sigma[1:, None]
    before, sigma_before = it.alpha[:-1, None], it.sigma[:-1, None]
    ratio = alpha / before
    beta = sigma**2 - (ratio * sigma_before) ** 2
    mean = (before * beta * x_0 + ratio * sigma_before**2 * x_t) / sigma**2  # DDPM, eq. 7
    return {
        "Eps": eps,
        "X0": x_0,
        "V": alpha * eps - sigma * x_0,
        "Velocity": eps - x_0,
        "Mean": mean,
        "MeanShift": (mean - ratio * x_t) / beta.sqrt(),
        "Perturbed": (mean - ratio * x_t) / beta.sqrt(),
        "Equilibrium": (mean - (1 - beta) * x_t) / beta,
    }


def defined(parameterization, it):
    return parameterization is not Eps or it.alpha[-1] > 0


@pytest.mark.parametrize("T", [30, 1000])
@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_target_is_the_documented_quantity(parameterization, of, T):
    it, p = process(of, T), parameterization()
    if not defined(parameterization, it):
        return
    t, x_0, eps, x_t, *_ = data(it)
    target = p.target(x_0, it, t, x_t)
    expected = documented(it, x_0, eps, x_t)[parameterization.__name__]
    torch.testing.assert_close(target, expected, rtol=1e-7, atol=1e-7)
    c_skip, c_out = p.coefficients(it, t, x_t)
    size = 1 + (c_skip * x_t).abs() + (c_out * target).abs()
    assert ((p.x_0(target, it, t, x_t) - x_0).abs() / size).max() < 1e-14


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_round_trip_in_single_precision(parameterization, of):
    it, p = process(of, 1000), parameterization()
    if not defined(parameterization, it):
        return
    t, x_0, _, x_t, *_ = data(it, torch.float32)
    target = p.target(x_0, it, t, x_t)
    back = p.x_0(target, it, t, x_t)
    assert target.dtype == back.dtype == torch.float32
    c_skip, c_out = p.coefficients(it, t, x_t)
    size = 1 + (c_skip * x_t).abs() + (c_out * target).abs()
    assert ((back - x_0).abs() / size).max() < 1e-6


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_single_time_is_a_batch_of_one(parameterization):
    it, p = Linear(), parameterization()
    x_t, F = torch.randn(2, 4, 1, 3, 3)
    for t in (1, 2, 500, 1000):
        one = p.x_0(F, it, torch.tensor(t), x_t)
        assert torch.equal(one, p.x_0(F, it, torch.full((4,), t), x_t))


@pytest.mark.parametrize("it", [Linear(), Cosine(), ZeroTerminal(Linear())])
def test_v_gives_x_0_and_eps(it):
    """x_0 = α x − σ v and ε = σ x + α v (Salimans & Ho 2022, appendix D)."""
    t, x_0, eps, x_t, alpha, sigma = data(it)
    v = V().target(x_0, it, t, x_t)
    torch.testing.assert_close(alpha * x_t - sigma * v, x_0)
    torch.testing.assert_close(sigma * x_t + alpha * v, eps)
    torch.testing.assert_close(V().x_0(v, it, t, x_t), x_0)


@pytest.mark.parametrize("it", [Linear(), Cosine()])
def test_losses_differ_by_weights_alone(it):
    """‖ε−ε̂‖² = SNR ‖x_0−x̂_0‖², ‖v−v̂‖² = (SNR + 1) ‖x_0−x̂_0‖² and ‖μ̃−μ‖² = a² ‖x_0−x̂_0‖²."""
    t, x_0, _, x_t, *_ = data(it)
    x_0_hat = torch.randn_like(x_0)
    alpha_bar = it.alpha[1:, None] ** 2
    before = it.alpha[:-1, None] ** 2
    snr = alpha_bar / (1 - alpha_bar)
    a = before.sqrt() * (1 - alpha_bar / before) / (1 - alpha_bar)
    error = (x_0 - x_0_hat) ** 2

    def loss(p):
        return (p.target(x_0, it, t, x_t) - p.target(x_0_hat, it, t, x_t)) ** 2

    torch.testing.assert_close(loss(Eps()), snr * error)
    torch.testing.assert_close(loss(V()), (snr + 1) * error)
    torch.testing.assert_close(loss(V()), (1 + 1 / snr) * loss(Eps()))
    torch.testing.assert_close(loss(Mean()), a**2 * error)
    assert torch.equal(loss(X0()), error)


@pytest.mark.parametrize("it", [ZeroTerminal(Linear()), RectifiedFlow()])
def test_eps_is_refused_where_no_signal_is_left(it):
    message = rf"Eps is undefined for {type(it).__name__}, whose α_T is 0; expected X0, V or Veloc"
    with pytest.raises(ValueError, match=message) as error:
        NetworkDenoiser(nn.Identity(), it, Eps())
    assert "\n" not in str(error.value)
    for p in (V(), X0(), Velocity()):
        NetworkDenoiser(nn.Identity(), it, p)


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_check_accepts_what_is_defined(parameterization, of):
    it = process(of, 30)
    if defined(parameterization, it):
        check(parameterization(), it)
    else:
        with pytest.raises(ValueError, match="undefined"):
            check(parameterization(), it)
