import copy
import pickle
from decimal import Decimal
from itertools import product

import numpy as np
import pytest
import torch
from exact import PROCESSES, process

from diffusion.process import (
    Cosine,
    Linear,
    Process,
    RectifiedFlow,
    ScaledLinear,
    Sigmoid,
    Sohl2015,
    VariancePreserving,
    ZeroTerminal,
)

x64 = torch.zeros(1, 1, dtype=torch.float64)


def near(value, printed):
    """Whether a number agrees with a printed one to all digits of it."""
    ulp = 10 ** float(Decimal(printed).as_tuple().exponent)
    return abs(float(value) - float(printed)) <= 0.51 * ulp


# process, t, β_t, ᾱ_t, β̃_t, log β̃_t clipped, weight of x_0, weight of x_t; computed with NumPy.
GOLDEN = [
    (Linear(), 1, "1.0000000e-4", ".99990000", "0.00000000", "-9.816725", "1.00000", "0.00000"),
    (Linear(), 2, "1.1991992e-4", ".99978009", "5.4531877e-5", "-9.816725", ".545291", ".454708"),
    (Linear(), 101, "2.091992e-3", ".89514159", "2.0545535e-3", "-6.187697", ".0188955", ".981076"),
    (Linear(), 501, ".01005996", ".077796658", ".010051336", "-4.600050", ".00305806", ".994104"),
    (
        Linear(),
        1000,
        ".02000000",
        "4.0358298e-5",
        ".019999984",
        "-3.912024",
        "1.28351e-4",
        ".989949",
    ),
    (ScaledLinear(), 1, "8.5000000e-4", ".99915000", "0.00000000", "-7.760243"),
    (ScaledLinear(), 101, "1.3839726e-3", ".89422348", "1.3677577e-3", "-6.594583"),
    (ScaledLinear(), 501, "4.8149541e-3", ".27633268", "4.8060586e-3", "-5.337878"),
    (ScaledLinear(), 1000, ".012000000", "4.6600985e-3", ".011999318", "-4.422905"),
    (Cosine(), 1, "4.1284225e-5", ".99995872", "0.00000000", "-10.734083"),
    (Cosine(), 101, "5.3189916e-4", ".97157568", "5.2222359e-4", "-7.557415"),
    (Cosine(), 501, "3.1556914e-3", ".49228517", "3.1460051e-3", "-5.761622"),
    (Cosine(), 1000, ".99900000", "2.4287669e-9", ".99899758", "-.001003"),
    (Cosine(4000), 1, "9.8658188e-6", ".99999013", None, "-12.204537"),
    (Cosine(4000), 401, "1.3253281e-4", ".9719639", None, "-8.933286"),
    (Cosine(4000), 2001, "7.8893555e-4", ".49345398", None, "-7.145595"),
    (Cosine(4000), 4000, ".99900000", "1.5179805e-10", None, "-.001001"),
    (Sigmoid(), 1, "3.002792e-4", ".99969972", None, "-8.800935"),
    (Sigmoid(), 101, "5.2757648e-4", ".96000048", None, "-7.559966"),
    (Sigmoid(), 501, "3.3143642e-3", ".49834282", None, "-5.712798"),
    (Sigmoid(), 1000, ".99900000", "3.002792e-7", None, "-.001301"),
    (Sohl2015(), 1, ".0010000000", ".99900000"),
    (Sohl2015(), 101, ".0011109875", ".89900524"),
    (Sohl2015(), 501, ".001998", ".49915395"),
    (Sohl2015(), 1000, ".50000000", "9.9352356e-4"),
    (ZeroTerminal(ScaledLinear()), 1, "8.5000000e-4", ".99915000"),
    (ZeroTerminal(ScaledLinear()), 1000, "1.0000000", "0.0000000000"),
]


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{type(row[0]).__name__}-{row[1]}")
def test_golden_values(row):
    of, t, *printed = row
    t = torch.tensor(t)
    beta, posterior = of.variances(t, t - 1, x64)
    log_small = of.reverse_log_variance(t, t - 1, x64, "small")
    values = [beta, of.alpha[t] ** 2, posterior, log_small, *of.posterior_weights(t, t - 1, x64)]
    for value, expected in zip(values, printed):
        assert expected is None or near(value, expected), (value.item(), expected)


@pytest.mark.parametrize("of", PROCESSES)
def test_tables(of):
    it = process(of, 50)
    assert it.T == 50
    assert it.alpha.dtype == it.sigma.dtype == torch.float64
    assert (it.alpha[0], it.sigma[0]) == (1, 0)
    assert (it.alpha.diff() < 0).all()
    assert (it.sigma.diff() > 0).all()
    assert it.alpha[-1] >= 0
    snr = it.snr(torch.arange(1, 51), x64)
    torch.testing.assert_close(snr, (it.alpha[1:] ** 2 / it.sigma[1:] ** 2)[:, None])
    if of is not RectifiedFlow:
        torch.testing.assert_close(it.alpha**2 + it.sigma**2, torch.ones(51).double())


def test_zero_terminal_keeps_first_and_differences():
    base = ScaledLinear()
    it = ZeroTerminal(base)
    assert it.alpha[-1] == 0
    assert it.sigma[-1] == 1
    torch.testing.assert_close(it.alpha[1], base.alpha[1])
    ratio = it.alpha[1:].diff() / base.alpha[1:].diff()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_rectified_flow_is_a_straight_line():
    it, x_0, eps = RectifiedFlow(4), torch.randn(5, 2), torch.randn(5, 2)
    path = it.diffuse(x_0, torch.arange(5), eps)
    expected = torch.stack([torch.lerp(x_0[i], eps[i], i / 4) for i in range(5)])
    torch.testing.assert_close(path, expected)


@pytest.mark.parametrize("of", PROCESSES)
def test_posterior_is_bayes(of):
    """q(x_s | x_0) q(x_t | x_s) normalised: precisions add, for every pair s < t."""
    it = process(of, 20)
    pairs = [(t, s) for t, s in product(range(2, 21), range(1, 20)) if s < t]
    t, s = torch.tensor(pairs).T
    x_0, x_t = torch.randn(2, len(pairs), 1, dtype=torch.float64)
    alpha, sigma = it.alpha[:, None], it.sigma[:, None]
    ratio = alpha[t] / alpha[s]
    forward = sigma[t] ** 2 - ratio**2 * sigma[s] ** 2
    precision = 1 / sigma[s] ** 2 + ratio**2 / forward
    expected = (alpha[s] * x_0 / sigma[s] ** 2 + ratio * x_t / forward) / precision
    mean, variance = it.posterior(x_0, x_t, t, s)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(variance, 1 / precision)
    torch.testing.assert_close(it.variances(t, s, x_t)[0], forward)


@pytest.mark.parametrize("of", PROCESSES)
def test_posterior_at_zero_is_the_data(of):
    t, x_0, x_t = torch.arange(1, 21), torch.randn(20, 1).double(), torch.randn(20, 1).double()
    mean, variance = process(of, 20).posterior(x_0, x_t, t, torch.zeros_like(t))
    torch.testing.assert_close(mean, x_0)
    assert (variance == 0).all()


@pytest.mark.parametrize("of", PROCESSES)
def test_single_steps_make_up_the_marginal_and_the_posterior(of):
    """Monte Carlo: a chain of q(x_u | x_{u−1}), then x_s regressed on x_t with x_0 fixed."""
    it, n, s, t, x_0 = process(of, 20), 100_000, 7, 15, 0.8
    x, kept = torch.full((n, 1), x_0, dtype=torch.float64), {}
    for u in range(1, t + 1):
        now, before = torch.tensor(u), torch.tensor(u - 1)
        beta, _ = it.variances(now, before, x)
        x = it.alpha[u] / it.alpha[u - 1] * x + beta.sqrt() * torch.randn_like(x)
        kept[u] = x
    for u in (s, t):
        assert abs(kept[u].mean() - it.alpha[u] * x_0) < 4 * it.sigma[u] / n**0.5
        assert abs(kept[u].std() / it.sigma[u] - 1) < 4 / (2 * n) ** 0.5
    x_s, x_t = kept[s], kept[t]
    covariance = torch.cov(torch.cat([x_s, x_t], 1).T)
    slope = covariance[0, 1] / covariance[1, 1]
    residual = covariance[0, 0] - slope * covariance[0, 1]
    t, s = torch.tensor(t), torch.tensor(s)
    a, b = it.posterior_weights(t, s, x)
    beta_tilde = it.variances(t, s, x)[1]
    error = (beta_tilde / covariance[1, 1] / n).sqrt()
    assert abs(slope - b) < 4 * error
    assert abs(residual / beta_tilde - 1) < 4 * (2 / n) ** 0.5
    assert abs(x_s.mean() - b * x_t.mean() - a * x_0) < 4 * (beta_tilde / n).sqrt()


@pytest.mark.parametrize("of", PROCESSES)
def test_learned_variance_interpolates_logarithms(of):
    it = process(of, 20)
    t = torch.arange(2, 21)
    s = t // 2
    x = torch.zeros(19, 3, dtype=torch.float64)
    forward, posterior = it.variances(t, s, x)
    logs = {v: it.reverse_log_variance(t, s, x, "learned", torch.full_like(x, v)) for v in (0, 1)}
    torch.testing.assert_close(logs[0], posterior.log().expand_as(x))
    torch.testing.assert_close(logs[1], forward.log().expand_as(x))
    middle = it.reverse_log_variance(t, s, x, "learned", torch.full_like(x, 0.5))
    torch.testing.assert_close(middle.exp(), (forward * posterior).sqrt().expand_as(x))
    for variance, value in {"small": posterior, "large": forward}.items():
        torch.testing.assert_close(it.reverse_log_variance(t, s, x, variance), value.log())


@pytest.mark.parametrize("steps", [1000, 250, 50, 20])
def test_clipped_variance_is_openais_on_respaced_grids(steps):
    """guided-diffusion: β'_i from the kept ᾱ, and index 1 in the place of index 0."""
    it = Linear()
    times = torch.arange(0, 1001, 1000 // steps)
    alpha_bar = (it.alpha[times] ** 2).numpy()
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    posterior = betas * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    small, large = (np.log(np.append(posterior[1], b[1:])) for b in (posterior, betas))
    t, s, x = times[1:], times[:-1], torch.zeros(steps, 1, dtype=torch.float64)
    v = torch.rand(steps, 1, dtype=torch.float64)
    learned = v.numpy()[:, 0] * np.log(betas) + (1 - v.numpy()[:, 0]) * small
    for variance, expected in {"small": small, "large": large, "learned": learned}.items():
        value = it.reverse_log_variance(t, s, x, variance, v)[:, 0]
        np.testing.assert_allclose(value, expected, rtol=1e-10, err_msg=variance)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_single_time_is_a_batch_of_one(variance):
    it, x, v = Cosine(), torch.randn(3, 2, 4), torch.rand(3, 2, 4)
    for t, s in [(1, 0), (2, 1), (40, 0), (1000, 960)]:
        one = it.reverse_log_variance(torch.tensor(t), torch.tensor(s), x, variance, v)
        every = it.reverse_log_variance(
            torch.tensor([t] * 3), torch.tensor([s] * 3), x, variance, v
        )
        assert one.dtype == every.dtype == torch.float32
        torch.testing.assert_close(one.expand(x.shape), every.expand(x.shape), rtol=0, atol=0)


def test_half_precision_keeps_the_first_times_noise():
    """1 − ᾱ computed in bfloat16 is 0 for the first ten times of the linear schedule."""
    it, t = Linear(), torch.arange(1, 1001)
    alpha, sigma = it.scales(t, torch.zeros(1000, 1, dtype=torch.bfloat16))
    assert alpha.dtype == sigma.dtype == torch.bfloat16
    torch.testing.assert_close(sigma[:, 0].double(), it.sigma[1:], rtol=2**-8, atol=0)
    torch.testing.assert_close(alpha[:, 0].double(), it.alpha[1:], rtol=2**-8, atol=0)


def test_is_a_plain_value():
    it = ZeroTerminal(Linear())
    it.lookup(torch.tensor([1]), x64)
    for other in (pickle.loads(pickle.dumps(it)), copy.deepcopy(it)):
        assert type(other) is ZeroTerminal
        assert torch.equal(other.alpha, it.alpha)
        assert torch.equal(other.sigma, it.sigma)
        x = torch.randn(2, 3)
        t = torch.tensor([3, 1000])
        assert torch.equal(other.diffuse(x, t, x), it.diffuse(x, t, x))


def test_made_under_inference_mode_it_still_trains():
    with torch.inference_mode():
        it = Linear()
    x_0 = torch.randn(2, 3, requires_grad=True)
    it.diffuse(x_0, torch.tensor([1, 1000]), torch.randn(2, 3)).square().sum().backward()
    assert x_0.grad is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariancePreserving(torch.tensor([0.1])), "T is 1"),
        (lambda: VariancePreserving(torch.tensor([0.1, 0.0])), "expected 0 < β ≤ 1"),
        (lambda: VariancePreserving(torch.tensor([0.1, 1.1])), r"0\.1 … 1\.1"),
        (lambda: VariancePreserving(torch.tensor([0.1, torch.nan])), "expected 0 < β ≤ 1"),
        (lambda: Process(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.0, 0.5, 1.0])), "α_0"),
        (lambda: Process(torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.1, 0.5, 1.0])), "σ_0"),
        (
            lambda: Process(torch.tensor([1.0, 0.1, 0.5]), torch.tensor([0.0, 0.5, 1.0])),
            "α to fall",
        ),
        (
            lambda: Process(torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.0, 1.0, 0.5])),
            "σ to rise",
        ),
        (
            lambda: Linear().reverse_log_variance(*torch.tensor([2, 1]), x64, "learned"),
            "learned; ex",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
