"""Products with a Gaussian r(x_0) = N(y; x_0, s² I) on data whose posterior is known."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import Gaussian, Mixture

from diffusion.condition import Condition
from diffusion.data import Digits
from diffusion.denoiser import Prediction
from diffusion.guidance import Denoise, Product
from diffusion.process import Binomial, Cosine, Linear, RectifiedFlow, Sohl2015
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver

MEAN = np.array([0.2, -0.1])
COV = np.array([[1.0, 0.8], [0.8, 1.0]]) / 4
Y, S = np.array([0.9, -0.4]), 0.5


class Pair:
    """x_0 ~ N(MEAN, COV) in the plane, and its exact denoiser."""

    def __init__(self, process):
        self.process = process

    def gain(self, t):
        alpha, sigma = self.process.alpha[t].item(), self.process.sigma[t].item()
        return alpha * COV @ np.linalg.inv(alpha**2 * COV + sigma**2 * np.eye(2))

    def __call__(self, x_t, t, cond):
        alpha, sigma = self.process.scales(t, x_t)
        gain, mean = torch.from_numpy(self.gain(int(t))), torch.from_numpy(MEAN)
        return Prediction(x_t, mean + (x_t - alpha * mean) @ gain.T, alpha, sigma)


def posterior(y=Y, s=S):
    precision = np.linalg.inv(COV) + np.eye(2) / s**2
    cov = np.linalg.inv(precision)
    return cov @ (np.linalg.inv(COV) @ MEAN + y / s**2), cov


def walk(pair, times, kernel):
    """Mean and covariance of x_0 by matrices; kernel(t, s) is x_s = A x_t + c + N(0, V)."""
    mean, cov = np.zeros(2), np.eye(2)
    for t, s in pairwise(times):
        A, c, V = kernel(t, s)
        mean, cov = A @ mean + c, A @ cov @ A.T + V
    return mean, cov


def weights(it, t, s):
    """a, b, β̃ and σ²_{t|s} from the tables."""
    (alpha_t, alpha_s), (sigma_t, sigma_s) = it.alpha[[t, s]].tolist(), it.sigma[[t, s]].tolist()
    forward = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
    b = alpha_t / alpha_s * sigma_s**2 / sigma_t**2
    return alpha_s * forward / sigma_t**2, b, forward * sigma_s**2 / sigma_t**2, forward


def denoised(pair):
    """The kernel of DDPM with E[x_0 | x_t, y] of the Gaussian itself, by conditioning on both."""

    def kernel(t, s):
        a, b, small, _ = weights(pair.process, t, s)
        alpha, sigma = pair.process.alpha[t].item(), pair.process.sigma[t].item()
        precision = np.linalg.inv(COV) + np.eye(2) * ((alpha / sigma) ** 2 + 1 / S**2)
        to_x, to_y = (np.linalg.inv(precision) * w for w in (alpha / sigma**2, 1 / S**2))
        rest = np.linalg.inv(precision) @ np.linalg.inv(COV) @ MEAN + to_y @ Y
        return a * to_x + b * np.eye(2), a * rest, small * np.eye(2)

    return kernel


def multiplied(pair):
    """The kernel of DDPM ("large") with its mean moved by the product with N(y; x, s² I)."""
    it = pair.process

    def kernel(t, s):
        a, b, _, forward = weights(it, t, s)
        if s == 0:
            variance, drawn = weights(it, 2, 1)[2], 0.0  # β̃ of the next transition
        else:
            variance = drawn = forward
        share = variance / (variance + S**2)
        gain = pair.gain(t)
        A = a * gain + b * np.eye(2)
        rest = a * (MEAN - gain @ (it.alpha[t].item() * MEAN))
        return (1 - share) * A, (1 - share) * rest + share * Y, drawn * np.eye(2)

    return kernel


def moments(pair, sampler, n=20_000):
    generator = torch.Generator().manual_seed(0)

    def noise(x):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    cond = Condition({"known": torch.from_numpy(Y).expand(n, 2)})
    x = sampler(pair, pair.process, noise(torch.empty(n, 2).double()), cond, noise).numpy()
    return x.mean(0), np.cov(x.T)


def close(found, expected, n=20_000, slack=0.0):
    (mean, cov), (mean_, cov_) = found, expected
    spread = np.sqrt(np.diag(cov_))
    near = np.abs(mean - mean_) < 4 * spread / n**0.5 + slack
    return near.all() and (np.abs(cov - cov_) < 6 * np.outer(spread, spread) / n**0.5 + slack).all()


@pytest.mark.parametrize("of", [Linear, Cosine, RectifiedFlow])
def test_denoise_is_the_exact_conditional_denoiser(of):
    """At every t: E[x_0 | x_t, y] by conditioning on both, but for t' being a whole number."""
    it = of(4000)
    pair, guide = Pair(it), Denoise(S).begin(it, Sampler(DDIM()).times(it), None)
    y, x_t = torch.from_numpy(Y).expand(50, 2), 2 * torch.randn(50, 2, dtype=torch.float64)
    for t in (1, 40, 700, 2000, 3900):
        alpha, sigma = it.alpha[t].item(), it.sigma[t].item()
        pred = guide(pair)(x_t, torch.tensor(t), Condition({"known": y}))
        precision = np.linalg.inv(COV) + np.eye(2) * ((alpha / sigma) ** 2 + 1 / S**2)
        right = np.linalg.inv(COV) @ MEAN + alpha / sigma**2 * x_t.numpy() + Y / S**2
        np.testing.assert_allclose(
            pred.x_0, right @ np.linalg.inv(precision).T, rtol=2e-3, atol=3e-3
        )
        torch.testing.assert_close(pred.alpha * pred.x_0 + pred.sigma * pred.eps, x_t)


def test_denoise_is_exact_for_data_that_are_not_gaussian():
    """A mixture: the posterior of a component is that of Bayes' rule on (x_t, y)."""
    it, s = Linear(4000, 2.5e-5, 0.005), 0.6
    data = Mixture(it, torch.tensor([[-1.0], [0.2], [0.9]]).double(), 0.1)
    guide = Denoise(s).begin(it, Sampler(DDIM()).times(it), None)
    x_t, y = torch.randn(2, 40, 1, dtype=torch.float64)
    for time in (300, 1500, 3000):
        t = torch.full((40,), time)
        alpha, sigma = it.alpha[time], it.sigma[time]
        precision = 1 / 0.01 + (alpha / sigma) ** 2 + 1 / s**2
        each = (data.means.T / 0.01 + alpha / sigma**2 * x_t + y / s**2) / precision
        # x_t and y share x_0's own spread, so their joint density is needed, not the product.
        joint = []
        for m in data.means[:, 0]:
            rows = [[alpha**2 * 0.01 + sigma**2, alpha * 0.01], [alpha * 0.01, 0.01 + s**2]]
            mean, cov = torch.stack([alpha * m, m]), torch.tensor(rows, dtype=torch.float64)
            normal = torch.distributions.MultivariateNormal(mean, cov)
            joint.append(normal.log_prob(torch.cat([x_t, y], 1)))
        expected = (torch.stack(joint, 1).softmax(1) * each).sum(1, keepdim=True)
        x_0 = guide(data)(x_t, t, Condition({"known": y})).x_0
        torch.testing.assert_close(x_0, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("step", [DDPM(), DDIM(), DPMSolver()], ids=lambda s: type(s).__name__)
def test_what_is_drawn_is_the_posterior(step):
    pair = Pair(Cosine(150))
    assert close(moments(pair, Sampler(step, guidance=[Denoise(S)])), posterior(), slack=0.02)


def test_its_error_falls_with_the_number_of_times():
    """By matrices, without sampling: the distance to the posterior is O(1/T)."""
    errors = []
    for T in (50, 100, 200, 400):
        it = Sohl2015(T)
        mean, cov = walk(Pair(it), range(T, -1, -1), denoised(Pair(it)))
        right_mean, right_cov = posterior()
        errors.append(np.abs(mean - right_mean).max() + np.abs(cov - right_cov).max())
    assert all(1.5 < error / half < 2.5 for error, half in pairwise(errors))
    assert errors[-1] < 0.01


@pytest.mark.parametrize("of", [Sohl2015(50), Cosine(100)])
def test_product_is_the_papers_kernel(of):
    pair = Pair(of)
    expected = walk(pair, range(of.T, -1, -1), multiplied(pair))
    assert close(moments(pair, Sampler(DDPM("large"), guidance=[Product(S)])), expected)


def test_product_is_not_the_posterior():
    """Its normalisation changes by O(β_t) a step, which adds up: more steps do not mend that."""
    away = []
    for T in (400, 800, 1600):
        pair = Pair(Sohl2015(T))
        mean, _ = walk(pair, range(T, -1, -1), multiplied(pair))
        away.append(np.linalg.norm(mean - posterior()[0]))
        assert np.linalg.norm(mean - Y) < np.linalg.norm(posterior()[0] - Y)  # pulled to y
    assert min(away) > 0.05
    assert abs(away[2] / away[1] - 1) < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoise(0.0), "guidance.sigma: 0.0; expected a positive number"),
        (lambda: Product(math.inf), "guidance.sigma: inf; expected a positive number"),
        (lambda: Denoise(0.001).check(Sohl2015(40), Digits().spec), "expected at least 0.16"),
        (lambda: Denoise(0.5).check(Binomial(40), Digits().spec), "Denoise; expected BitProduct"),
        (lambda: Sampler(DDIM(), guidance=[Product(S)]).begin(Linear()), "expected the step DDPM"),
        (lambda: Denoise(S)(Gaussian(Linear()))(torch.zeros(1, 2), torch.tensor(5), None), "grid"),
        (
            lambda: Sampler(DDPM(), guidance=[Product(S)])(
                Gaussian(Linear()), Linear(), torch.zeros(1, 2)
            ),
            "Product needs the condition 'known'",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
