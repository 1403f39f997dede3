"""The binomial kernel against enumeration in NumPy: kernels, bound, samples and products."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from diffusion import bound
from diffusion.condition import Condition
from diffusion.data import BinaryDigits, Digits, Heartbeat, SwissRoll
from diffusion.denoiser import NetworkDenoiser, Prediction
from diffusion.guidance import BitProduct, Inpaint
from diffusion.networks import PixelMLP
from diffusion.objective import Simple, VariationalBound
from diffusion.parameterization import X0, LogOdds
from diffusion.pipeline import trainer
from diffusion.process import Binomial, Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDPM, Bernoulli
from diffusion.systems.diffusion import Diffusion

D = 6
STATES = np.array(list(product([-1.0, 1.0], repeat=D)))  # (64, D)
BEATS = np.array([[1.0 if i % 3 == k else -1.0 for i in range(D)] for k in range(3)])  # period 3
HEARTBEAT = (STATES[:, None] == BEATS).all(2).sum(1) / 3
CHANCES = np.array([0.1, 0.5, 0.9, 0.7, 0.02, 0.3])  # of a 1, each bit's own
INDEPENDENT = np.where(STATES > 0, CHANCES, 1 - CHANCES).prod(1)
DATA = {"heartbeat": HEARTBEAT, "independent": INDEPENDENT}


def flips(kept):
    """The 64 × 64 matrix of a kernel under which each bit is drawn anew with chance 1 − kept."""
    same = (1 + kept) / 2
    return np.where(STATES[:, None] == STATES[None], same, 1 - same).prod(-1)


class Chain:
    """The exact chain of a distribution of 64 states, by Bayes' rule and nothing else."""

    def __init__(self, data, T):
        self.T, self.marginals = T, [data]
        for t in range(1, T + 1):
            self.marginals.append(self.marginals[-1] @ flips(1 - 1 / (T - t + 1)))

    def before(self, t):
        """P(x_{t−1} | x_t), rows by x_t."""
        joint = self.marginals[t - 1][:, None] * flips(1 - 1 / (self.T - t + 1))
        return (joint / joint.sum(0)).T

    def ones(self, t):
        """The best f_b: P(bit i of x_{t−1} is 1 | x_t), (64, D)."""
        return self.before(t) @ (STATES > 0)

    def reverse(self, t):
        """p(x_{t−1} | x_t) with independent bits of these chances, rows by x_t."""
        ones = self.ones(t)[:, None]
        return np.where(STATES[None] > 0, ones, 1 - ones).prod(-1)

    def drawn(self):
        """The distribution of what is drawn."""
        p = np.full(len(STATES), 1 / len(STATES))
        for t in range(self.T, 0, -1):
            p = p @ self.reverse(t)
        return p

    def bound(self):
        """−K in bits, with sums over all pairs of x_0, x_t and x_{t−1}."""
        total, T = 0.0, self.T
        for t in range(1, T + 1):
            now, before = flips(1 - t / T), flips(1 - (t - 1) / T)
            step = flips(1 - 1 / (T - t + 1))
            log_p = np.log(np.maximum(self.reverse(t), 1e-300))  # by x_t, x_{t−1}
            for i in np.flatnonzero(self.marginals[0]):
                posterior = (
                    before[i][:, None] * step / np.maximum(now[i], 1e-300)
                )  # by x_{t−1}, x_t
                log_q = np.log(np.maximum(posterior, 1e-300))
                kl = (posterior * (log_q - log_p.T)).sum(0)
                total += self.marginals[0][i] * (now[i] * kl).sum()
        return total / math.log(2)


class Best(torch.nn.Module):
    """F of `LogOdds` for the best f_b."""

    def __init__(self, chain):
        super().__init__()
        self.ones = torch.stack([torch.from_numpy(chain.ones(t)) for t in range(1, chain.T + 1)])
        self.T = chain.T

    def forward(self, x_t, t):
        place = ((x_t > 0).long() * 2 ** torch.arange(D - 1, -1, -1)).sum(1)
        beta = 1 / (self.T - t[:, None] + 1.0).double()
        return torch.logit(self.ones[t - 1, place], 1e-13) - x_t * torch.log((2 - beta) / beta)


def model(data, T):
    chain, process = Chain(DATA[data], T), Binomial(T)
    return chain, NetworkDenoiser(Best(chain), process, LogOdds())


def entropy(p):
    p = p[p > 0]
    return -(p * np.log2(p)).sum()


def test_the_process_is_repeated_flipping():
    """α_t = 1 − t/T of the signal is left: the product of the kernels, and nothing at T."""
    it, matrix = Binomial(9), np.eye(len(STATES))
    for t in range(1, 10):
        matrix = matrix @ flips(1 - 1 / (9 - t + 1))
        np.testing.assert_allclose(matrix, flips(it.alpha[t].item()), atol=1e-14)
    assert it.alpha[-1] == 0


def test_posterior_is_bayes_and_linear():
    it, T = Binomial(9), 9
    for t, s in [(9, 8), (5, 2), (1, 0), (9, 0), (4, 3)]:
        for x_0, x_t in product([-1.0, 1.0], repeat=2):
            kept = [it.alpha[s].item(), (it.alpha[t] / it.alpha[s]).item()]
            weights = [(1 + kept[0] * x_0 * x) * (1 + kept[1] * x * x_t) for x in (-1, 1)]
            if sum(weights) == 0:
                continue
            mean, _ = it.posterior(
                torch.tensor([[x_0]]).double(), torch.tensor([[x_t]]).double(),
                torch.tensor(t), torch.tensor(s),
            )  # fmt: skip
            assert mean.item() == pytest.approx((weights[1] - weights[0]) / sum(weights))
    assert T == it.T


def test_what_is_drawn_of_x_t_is_bits_of_its_mean():
    n, it = 200_000, Binomial(10)
    x_0 = torch.tensor([-1.0, 1.0]).expand(n, 2)
    for t in (0, 3, 10):
        x_t = it.diffuse(x_0, torch.full((n,), t), torch.randn(n, 2))
        assert x_t.dtype == torch.float32
        assert (x_t.abs() == 1).all()
        alpha = 1 - t / 10
        error = 4 * (1 - alpha**2) ** 0.5 / n**0.5
        assert ((x_t.mean(0) - alpha * x_0[0]).abs() <= error).all()
    prior = it.prior(torch.randn(n, 1))
    assert abs(prior.mean()) < 4 / n**0.5


@pytest.mark.parametrize("T", [4, 10])
@pytest.mark.parametrize("data", DATA)
def test_the_bound_is_that_of_enumeration(data, T):
    """Every x_0, every x_t, exactly: the code's terms against sums over pairs of states."""
    chain, denoiser = model(data, T)
    it, states, total = denoiser.process, torch.from_numpy(STATES), 0.0
    for i in np.flatnonzero(chain.marginals[0]):
        x_0 = states[i].expand(len(STATES), D)
        for t in range(1, T + 1):
            times = torch.full((len(STATES),), t)
            pred = denoiser(states, times, Condition())
            value = D * bound.term(pred, it, x_0, times, "small", 2).numpy()
            weight = flips(1 - t / T)[i]
            total += chain.marginals[0][i] * (weight * value)[weight > 0].sum()
        assert bound.prior_term(it, x_0).abs().max() == 0
    assert total == pytest.approx(chain.bound(), rel=1e-8)
    drawn = -(chain.marginals[0] * np.log2(np.maximum(chain.drawn(), 1e-300))).sum()
    assert entropy(chain.marginals[0]) - 1e-9 < drawn < total + 1e-9  # H ≤ −E log p ≤ bound


def test_the_bound_goes_to_the_entropy():
    """As 1/T for dependent bits, log₂ 3 for the heartbeat; for independent ones it is there."""
    for T in (1, 3, 8):
        assert Chain(INDEPENDENT, T).bound() == pytest.approx(entropy(INDEPENDENT), abs=1e-9)
    assert entropy(HEARTBEAT) == pytest.approx(math.log2(3))
    gaps = [Chain(HEARTBEAT, T).bound() - math.log2(3) for T in (16, 32, 64, 128)]
    for gap, half in pairwise(gaps):
        assert 1.7 < gap / half < 2.3
    assert 0 < gaps[-1] < 0.04


def frequencies(x):
    place = ((x > 0).long() * 2 ** torch.arange(D - 1, -1, -1)).sum(1)
    return np.bincount(place.numpy(), minlength=len(STATES))


def agrees(count, p):
    """A χ² test of counts at the level 10⁻⁴, of the states that are not too rare."""
    n, seen = count.sum(), p * count.sum() > 5
    rest = [count[~seen].sum(), n * p[~seen].sum()]
    observed, expected = np.append(count[seen], rest[0]), np.append(n * p[seen], rest[1])
    keep = expected > 1
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    return statistic < chi2.ppf(1 - 1e-4, keep.sum() - 1) and observed[~keep].sum() < 20


@pytest.mark.parametrize("data", DATA)
def test_samples_have_the_distribution_of_the_chain(data):
    n, T = 40_000, 8
    chain, denoiser = model(data, T)
    x = Sampler(Bernoulli())(denoiser, denoiser.process, torch.randn(n, D))
    assert agrees(frequencies(x), chain.drawn())
    path = list(Sampler(Bernoulli()).trajectory(denoiser, denoiser.process, torch.randn(9, D)))
    assert all((x.abs() == 1).all() for x in path)


def test_longer_steps_follow_from_the_expected_x_0():
    """Of independent bits a step of any length is exact, as E[x_0 | x_t] is all that matters."""
    _, denoiser = model("independent", 12)
    x = Sampler(Bernoulli(), 3)(denoiser, denoiser.process, torch.randn(40_000, D))
    assert agrees(frequencies(x), INDEPENDENT)


def test_a_known_bit_walks_to_what_it_is_and_others_follow():
    """`Inpaint` gives the known bit its posterior, and leaves the others to the model."""
    n, T, start = 40_000, 8, np.full(len(STATES), 1 / len(STATES))
    chain, denoiser = model("heartbeat", T)
    p = start
    for t in range(T, 0, -1):
        ones, kept = chain.ones(t), np.array([1 - (t - 1) / T, 1 - 1 / (T - t + 1)])
        up, down = (1 + kept[0]) * (1 + kept[1] * STATES[:, 0]), (1 - kept[0])
        down = down * (1 - kept[1] * STATES[:, 0])
        ones[:, 0] = up / np.where(up + down > 0, up + down, 1)
        p = p @ np.where(STATES[None] > 0, ones[:, None], 1 - ones[:, None]).prod(-1)
    mask = torch.tensor([1.0, 0, 0, 0, 0, 0]).expand(n, D)
    cond = Condition({"known": torch.ones(n, D), "mask": mask})
    sampler = Sampler(Bernoulli(), guidance=[Inpaint()])
    count = frequencies(sampler(denoiser, denoiser.process, torch.randn(n, D), cond))
    assert (STATES[count > 0][:, 0] == 1).all()
    assert agrees(count, p)


@pytest.mark.parametrize("data", DATA)
def test_a_product_multiplies_every_kernel(data):
    """p̃(x_{t−1} | x_t) ∝ p(x_{t−1} | x_t) r(x_{t−1}), by enumeration."""
    n, T, flip = 40_000, 8, 0.4
    chain, denoiser = model(data, T)
    y = np.array([1.0, -1, -1, 1, -1, 1])
    r = np.where(STATES == y, 1 - flip, flip).prod(1)
    p = np.full(len(STATES), 1 / len(STATES))
    for t in range(T, 0, -1):
        kernel = chain.reverse(t) * r
        p = p @ (kernel / kernel.sum(1, keepdims=True))
    sampler = Sampler(Bernoulli(), guidance=[BitProduct(flip)])
    cond = Condition({"known": torch.from_numpy(y).expand(n, D)})
    assert agrees(frequencies(sampler(denoiser, denoiser.process, torch.randn(n, D), cond)), p)


def test_confident_networks_lose_no_digits():
    """f_b within 10⁻⁶ of certainty, in float32 inputs and with 2000 times."""
    it, t = Binomial(2000), torch.tensor([1, 2, 1000, 1999, 2000])
    x_t, F = (
        torch.tensor([1.0, -1, 1, -1, 1])[:, None],
        torch.tensor([14.0, -14, 3, 14, -2])[:, None],
    )
    x_0_hat = LogOdds().x_0(F, it, t, x_t)
    pred = Prediction(x_t, x_0_hat, *it.scales(t, x_t))
    x_0 = torch.tensor([1.0, -1, 1, -1, -1])[:, None]
    value = bound.term(pred, it, x_0, t, "small", 2).double().numpy() * math.log(2)
    T, k = 2000, t.numpy().astype(np.float64)
    beta = 1 / (T - k + 1)
    odds = F[:, 0].double().numpy() + x_t[:, 0].numpy() * np.log((2 - beta) / beta)
    before = 1 - (k - 1) / T
    with np.errstate(divide="ignore"):
        right = x_0[:, 0].numpy() * np.log((1 + before) / (1 - before))
    right = right + x_t[:, 0].numpy() * np.log((2 - beta) / beta)
    log_p = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    log_q = -np.logaddexp(0, -right), -np.logaddexp(0, right)
    terms = [np.exp(q) * (np.where(np.isinf(q), 0, q) - p) for q, p in zip(log_q, log_p)]
    np.testing.assert_allclose(value, sum(terms), rtol=1e-5, atol=1e-9)


def test_it_trains_and_finds_the_heartbeat():
    torch.manual_seed(0)
    parts = Binomial(20), LogOdds(), VariationalBound(levels=2), Sampler(Bernoulli())
    module = Diffusion(PixelMLP((1, 1, 20), 32, 1), *parts)
    data = Heartbeat(sequences=100, batch_size=100)
    trainer(max_steps=60, accelerator="cpu", limit_val_batches=0).fit(module, data)
    x_0 = next(data.batches("test", 100))["image"]
    assert x_0.shape == (100, 1, 1, 20)
    assert ((x_0.reshape(100, 4, 5) > 0).sum(2) == 1).all()
    t = torch.arange(2000) % 20 + 1
    x_0 = x_0.repeat(20, 1, 1, 1)
    loss = module.objective(module.denoiser, x_0, Condition(), t, torch.randn_like(x_0)).mean()
    assert loss < 0.72  # of bits that are each a fifth of the time 1
    assert (module.generate({}, [0, 1, 2]).abs() == 1).all()


def test_binary_digits_are_thresholded():
    grey, bits = Digits(), BinaryDigits(threshold=5)
    for data in (grey, bits):
        data.setup("fit")
    for split in ("train", "test"):
        values = [next(data.batches(split, 200)) for data in (grey, bits)]
        assert torch.equal(values[0]["label"], values[1]["label"])
        expected = torch.where((values[0]["image"] + 1) * 8 >= 4.999, 1.0, -1.0)
        assert torch.equal(values[1]["image"], expected)


def diffusion(process, step, parameterization, objective):
    return Diffusion(
        PixelMLP((1, 1, 20), 8, 1), process, parameterization, objective, Sampler(step)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryDigits(threshold=0), "data.threshold: 0; expected 1 … 16"),
        (lambda: Heartbeat(sequences=12), "data.sequences: 12; expected a multiple of 5"),
        (lambda: BitProduct(0.0), "guidance.flip: 0.0; expected above 0"),
        (
            lambda: Sampler(DDPM()).begin(Binomial(5)),
            "sampler.step: DDPM; expected Bernoulli, as Binomial is a process of bits",
        ),
        (lambda: Sampler(Bernoulli()).begin(Cosine(5)), "Bernoulli; expected another, as Cosine"),
        (
            lambda: diffusion(Cosine(5), DDPM(), LogOdds(), VariationalBound()),
            "parameterization: LogOdds; expected one of no bits, for Cosine",
        ),
        (
            lambda: diffusion(Binomial(5), Bernoulli(), LogOdds(), Simple()),
            "model.objective: Simple; expected VariationalBound, the only loss for LogOdds",
        ),
        (
            lambda: diffusion(Binomial(5), Bernoulli(), X0(), Simple()).check(Digits()),
            "network.shape|expected two, for a process of bits",
        ),
        (
            lambda: BitProduct(0.1).check(Cosine(5), SwissRoll().spec),
            "BitProduct; expected Denoise or Product",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
