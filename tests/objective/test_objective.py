import math

import numpy as np
import pytest
import torch
from exact import PROCESSES, Wavy, process, subclasses
from scipy.special import ndtr

from diffusion import bound
from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.objective import Hybrid, MinSNR, Simple, VariationalBound, VLoss
from diffusion.parameterization import X0, Eps, Parameterization, V
from diffusion.process import Linear, ZeroTerminal

T = 1000
PARAMETERIZATIONS = [of for of in subclasses(Parameterization) if not of.binary]


def batch(parameterization, process=None, channels=1):
    """Returns all that a loss sees, in float64: ᾱ, x_0, ε, x_t, the network's output for each t."""
    process = process or Linear()
    t = torch.arange(1, T + 1)
    x_0, eps = torch.randn(2, T, 1, 3, dtype=torch.float64)
    alpha_bar = (process.alpha[1:] ** 2).reshape(-1, 1, 1)
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
    denoiser = NetworkDenoiser(Wavy(channels).double(), process, parameterization)
    return denoiser, t, x_0, eps, x_t, alpha_bar, denoiser.network(x_t, t)


def test_simple_is_the_error_of_the_noise():
    denoiser, t, x_0, eps, _, _, F = batch(Eps())
    loss = Simple()(denoiser, x_0, Condition(), t, eps)
    assert loss.shape == (T,)
    torch.testing.assert_close(loss, (eps - F).square().mean((1, 2)))


@pytest.mark.parametrize("parameterization", [X0(), V()])
def test_simple_is_the_error_of_the_output(parameterization):
    denoiser, t, x_0, eps, _, alpha_bar, F = batch(parameterization)
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0
    target = x_0 if isinstance(parameterization, X0) else v
    loss = Simple()(denoiser, x_0, Condition(), t, eps)
    torch.testing.assert_close(loss, (target - F).square().mean((1, 2)))


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
def test_min_snr_weights(parameterization, gamma):
    """min(SNR, γ) on x_0, / SNR on ε, / (SNR + 1) on v (Hang et al. 2023, section 3.4)."""
    denoiser, t, x_0, eps, _, alpha_bar, F = batch(parameterization)
    snr = alpha_bar / (1 - alpha_bar)
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0
    target, divisor = {
        "Eps": (eps, snr),
        "X0": (x_0, torch.ones_like(snr)),
        "V": (v, snr + 1),
    }[type(parameterization).__name__]
    weight = snr.clamp(max=gamma) / divisor
    loss = MinSNR(gamma)(denoiser, x_0, Condition(), t, eps)
    torch.testing.assert_close(loss, (weight * (target - F).square()).mean((1, 2)))


def test_min_snr_of_the_linear_schedule_starts_at_130():
    """SNR < 5 from index 130 on: earlier times are clipped, later ones weigh as ε does."""
    snr = Linear().snr(torch.arange(1, T + 1), torch.zeros(1))
    assert (snr[:130] >= 5).all()
    assert (snr[130:] < 5).all()
    assert (snr < 1).nonzero()[0] == 259


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
def test_the_v_loss_weighs_by_snr_plus_1(parameterization):
    """SNR + 1 on x_0, (SNR + 1) / SNR on ε, 1 on v, where α² + σ² = 1."""
    denoiser, t, x_0, eps, _, alpha_bar, F = batch(parameterization)
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0
    target, weight = {
        "Eps": (eps, 1 / alpha_bar),
        "X0": (x_0, 1 / (1 - alpha_bar)),
        "V": (v, torch.ones_like(alpha_bar)),
    }[type(parameterization).__name__]
    loss = VLoss()(denoiser, x_0, Condition(), t, eps)
    torch.testing.assert_close(loss, (weight * (target - F).square()).mean((1, 2)))


class Known(torch.nn.Module):
    """Puts out the same, whatever it is asked."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x_t, t):
        return self.output


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_v_loss_is_that_of_v_in_the_estimate(parameterization, of):
    """v̂ of x̂_0 by ε̂ = (x_t − α x̂_0) / σ; and the loss of the same x̂_0 in any other output."""
    it = process(of, 50)
    if parameterization is Eps and it.alpha[-1] == 0:
        return
    t = torch.arange(1, 51)
    x_0, eps = torch.randn(2, 50, 1, 3, dtype=torch.float64)
    alpha, sigma = (x[1:].reshape(-1, 1, 1) for x in (it.alpha, it.sigma))
    x_t = alpha * x_0 + sigma * eps
    denoiser = NetworkDenoiser(Wavy().double(), it, parameterization())
    x_0_hat = denoiser(x_t, t, Condition()).x_0
    v_hat = alpha * (x_t - alpha * x_0_hat) / sigma - sigma * x_0_hat
    expected = (alpha * eps - sigma * x_0 - v_hat).square().mean((1, 2))
    loss = VLoss()(denoiser, x_0, Condition(), t, eps)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    same = VLoss()(NetworkDenoiser(Known(x_0_hat), it, X0()), x_0, Condition(), t, eps)
    torch.testing.assert_close(same, loss, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("of", PROCESSES)
def test_the_v_loss_of_v_is_simple(of, dtype):
    it = process(of, T)
    x_0, eps = torch.randn(2, T, 1, 3, dtype=dtype)
    denoiser = NetworkDenoiser(Wavy().to(dtype), it, V())
    given = denoiser, x_0, Condition(), torch.arange(1, T + 1), eps
    torch.testing.assert_close(VLoss()(*given), Simple()(*given))


@pytest.mark.parametrize("objective", [Simple(), MinSNR(), VLoss(), VariationalBound()])
def test_is_finite_without_signal(objective):
    denoiser, t, x_0, eps, *_ = batch(V(), ZeroTerminal(Linear()))
    loss = objective(denoiser, x_0.clamp(-1, 1), Condition(), t, eps)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert denoiser.network.weight.grad.isfinite()


def test_variational_bound_is_ddpms():
    """Its mean over t is L_T + L_0 + Σ β² / (2 σ² (1 − β)(1 − ᾱ)) ‖ε − ε̂‖² (DDPM, eq. 5 and 12)."""
    denoiser, t, x_0, eps, *_ = batch(Eps())
    x_0 = torch.linspace(-1, 1, 256, dtype=torch.float64)[[3, 100, 255]].expand(T, 1, 3)
    loss = VariationalBound("small", 256)(denoiser, x_0, Condition(), t, eps)
    beta = np.linspace(1e-4, 0.02, T)
    alpha_bar = np.cumprod(1 - beta)
    posterior = beta[1:] * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    x_t = (
        np.sqrt(alpha_bar)[:, None, None] * x_0.numpy()
        + np.sqrt(1 - alpha_bar)[:, None, None] * eps.numpy()
    )
    eps_hat = denoiser.network(torch.from_numpy(x_t), t).detach().numpy()
    error = ((eps.numpy() - eps_hat) ** 2).mean((1, 2))
    weight = beta[1:] ** 2 / (2 * posterior * (1 - beta[1:]) * (1 - alpha_bar[1:]))
    std, x = math.sqrt(posterior[0]), x_0.numpy()[0]
    mean = (x_t[0] - math.sqrt(beta[0]) * eps_hat[0]) / math.sqrt(1 - beta[0])
    upper = np.where(x == 1, np.inf, (x + 1 / 255 - mean) / std)
    lower = np.where(x == -1, -np.inf, (x - 1 / 255 - mean) / std)
    end = alpha_bar[-1]
    prior = ((end * (x**2).mean() - end) - np.log1p(-end)) / 2
    nats = prior - np.log(ndtr(upper) - ndtr(lower)).mean() + (weight * error[1:]).sum()
    assert loss.mean().item() == pytest.approx(nats / math.log(2), rel=1e-6)


def test_learned_variance_is_in_the_bound():
    denoiser, t, x_0, eps, *_ = batch(Eps(), channels=2)
    x_0 = x_0.clamp(-1, 1)
    values = {
        variance: VariationalBound(variance)(denoiser, x_0, Condition(), t, eps).mean()
        for variance in ("small", "large", "learned")
    }
    assert len({round(value.item(), 6) for value in values.values()}) == 3
    values["learned"].backward()
    assert denoiser.network.weight.grad.isfinite()


def test_times_are_uniform_and_noise_standard():
    n = 40_000
    t, eps = Simple().draw(Linear(5), torch.zeros(n, 2), SeededNoise(0, range(n)))
    count = torch.bincount(t, minlength=6)[1:]
    assert count.sum() == n
    assert ((count - n / 5).abs() < 4 * (n * 0.2 * 0.8) ** 0.5).all()
    assert abs(eps.mean()) < 4 / (2 * n) ** 0.5
    assert abs(eps.std() - 1) < 4 / (4 * n) ** 0.5
    # t and ε of one sample are independent.
    assert abs(((t - 3.0) * eps[:, 0]).mean()) < 4 * 2**0.5 / n**0.5


def test_gamma_out_of_range():
    with pytest.raises(ValueError, match=r"objective\.gamma: 0; expected a positive number"):
        MinSNR(0)


def test_hybrid_is_openais():
    """L_simple and L_vlb / 1000 of six samples by guided-diffusion's `training_losses`.

    Its GaussianDiffusion with the linear schedule, EPSILON, LEARNED_RANGE and RESCALED_MSE was
    given the same network, images and noise as here. For t = 1 its Φ is an approximation.
    """
    vb = [2.3324520722218, 0.5689112979966, 0.0697724189820, 0.0033427131556, 0.0012134371832]
    vb = torch.tensor([*vb, 0.0011068906309], dtype=torch.float64)
    mse = [0.9292226980469, 0.8447002621006, 0.6420215910536, 0.4325987895801, 0.1172806074263]
    mse = torch.tensor([*mse, 0.0751862913902], dtype=torch.float64)
    n = torch.arange(72, dtype=torch.float64)
    x_0 = (n * 37 % 256).reshape(6, 1, 3, 4) / 127.5 - 1
    eps = torch.sin(n * 1.7 + 0.3).reshape(6, 1, 3, 4) * 1.3
    t = torch.tensor([1, 2, 11, 251, 701, 1000])
    denoiser = NetworkDenoiser(Wavy(2).double(), Linear(), Eps())
    given = (denoiser, x_0, Condition(), t, eps)
    torch.testing.assert_close(Simple()(*given), mse)
    bound_alone = Hybrid()(*given) - Simple()(*given)
    torch.testing.assert_close(bound_alone[1:], vb[1:], rtol=1e-6, atol=0)
    torch.testing.assert_close(bound_alone[:1], vb[:1], rtol=2e-3, atol=0)
    constant = bound.prior_term(Linear(), x_0)
    full = VariationalBound("learned")(*given) - constant
    torch.testing.assert_close(full, 1000 * bound_alone)


def test_in_the_hybrid_the_bound_moves_only_the_variance():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torch.nn.Parameter(torch.tensor(0.3))
            self.variance = torch.nn.Parameter(torch.tensor(0.1))

        def forward(self, x_t, t):
            return torch.cat([self.mean * x_t, self.variance * x_t], 1)

    def gradients(objective):
        denoiser = NetworkDenoiser(Two().double(), Linear(), V())
        torch.manual_seed(0)
        x_0 = torch.rand(64, 1, 2, 2, dtype=torch.float64) * 2 - 1
        t, eps = objective.draw(denoiser.process, x_0, SeededNoise(0, range(64)))
        objective(denoiser, x_0, Condition(), t, eps).mean().backward()
        return denoiser.network.mean.grad, denoiser.network.variance.grad

    simple, nothing = gradients(Simple())
    mean, variance = gradients(Hybrid(weight=1.0))
    double = gradients(Hybrid(weight=2.0))[1]
    bound_mean, bound_variance = gradients(VariationalBound("learned"))
    assert nothing is None or nothing == 0
    assert mean == simple
    assert bound_mean.abs() > 0
    torch.testing.assert_close(variance, bound_variance)
    torch.testing.assert_close(double, 2 * variance)


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_hybrid_weight_out_of_range(weight):
    with pytest.raises(ValueError, match=r"objective\.weight: .*; expected a number ≥ 0"):
        Hybrid(weight)


def test_hybrid_needs_a_variance():
    denoiser, t, x_0, eps, *_ = batch(Eps())
    with pytest.raises(ValueError, match="twice the channels"):
        Hybrid()(denoiser, x_0, Condition(), t, eps)
