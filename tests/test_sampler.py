from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from exact import PROCESSES, Gaussian, Mixture, Wavy, process

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import Dynamic, Guidance
from diffusion.parameterization import Eps
from diffusion.process import Cosine, Linear, RectifiedFlow, Sohl2015
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM

SPACINGS = ["trailing", "leading", "linspace", "quadratic"]
FOUR = torch.tensor([[-0.8, -0.5], [0.6, 0.7], [0.5, -0.6], [-0.4, 0.5]], dtype=torch.float64)


def ddims_code(T, steps, quadratic):
    """The DDIM authors' grids, 0-based: `runners/diffusion.py`."""
    if quadratic:
        return [int(s) for s in np.linspace(0, np.sqrt(T * 0.8), steps) ** 2]
    return list(range(0, T, T // steps))


@pytest.mark.parametrize(
    ("spacing", "steps", "first", "last"),  # in 0 … 999, as the papers' code counts
    [
        ("leading", 10, 0, 900),
        ("leading", 50, 0, 980),
        ("leading", 100, 0, 990),
        ("trailing", 10, 99, 999),
        ("trailing", 50, 19, 999),
        ("trailing", 100, 9, 999),
        ("linspace", 10, 0, 999),
        ("linspace", 50, 0, 999),
        ("linspace", 100, 0, 999),
        ("quadratic", 10, 0, 800),
        ("quadratic", 50, 0, 800),
        ("quadratic", 100, 0, 800),
    ],
)
def test_grids_of_the_literature(spacing, steps, first, last):
    times = Sampler(DDIM(), steps, spacing=spacing).times(1000)
    assert (times[0], times[-2], times[-1]) == (last + 1, first + 1, 0)
    visited = {"quadratic": {10: 10, 50: 49, 100: 96}[steps]}.get(spacing, steps)
    assert len(times) == visited + 1
    assert times.dtype == torch.long
    assert (times.diff() < 0).all()


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500, 1000])
def test_grids_of_ddims_code(steps):
    for spacing in ("leading", "quadratic"):
        expected = sorted({t + 1 for t in ddims_code(1000, steps, spacing == "quadratic")})
        times = Sampler(DDIM(), steps, spacing=spacing).times(1000)
        assert times[:-1].flip(0).tolist() == expected, spacing


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 7, 10, 30, 50, 64, 333, 600, 999, 1000])
def test_grids_of_diffusers(spacing, steps):
    scheduler = DDPMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    expected = [*(scheduler.timesteps + 1).tolist(), 0]
    assert Sampler(DDIM(), steps, spacing=spacing).times(1000).tolist() == expected


@pytest.mark.parametrize("spacing", SPACINGS)
def test_grids_of_any_length(spacing):
    for T in (2, 3, 7, 10, 40, 100):
        for steps in range(1, T + 1):
            times = Sampler(DDIM(), steps, spacing=spacing).times(T)
            assert times[-1] == 0
            assert (times[:-1] >= 1).all()
            assert times[0] <= T
            assert (times.diff() < 0).all()
            if spacing != "quadratic":
                assert len(times) == steps + 1
        every = Sampler(DDIM(), spacing=spacing).times(T)
        if spacing != "quadratic":
            assert every.tolist() == list(range(T, -1, -1))


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_must_be_positive(steps):
    with pytest.raises(ValueError, match=rf"sampler\.steps: {steps}; expected at least 1"):
        Sampler(DDIM(), steps)


def test_steps_must_not_exceed_the_times():
    with pytest.raises(ValueError, match=r"sampler\.steps: 11; expected at most .* T = 10"):
        Sampler(DDIM(), 11)(Gaussian(Cosine(10)), Cosine(10), torch.randn(2, 1))


@pytest.mark.parametrize("step", [DDIM(), DDPM("large"), DDIM(0.5)])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_trajectory_ends_where_the_call_does(step, spacing):
    it, x_T = Linear(), torch.randn(3, 2)
    sampler = Sampler(step, 20, spacing=spacing)
    torch.manual_seed(1)
    path = list(sampler.trajectory(Gaussian(it), it, x_T))
    torch.manual_seed(1)
    x_0 = sampler(Gaussian(it), it, x_T)
    assert len(path) == len(sampler.times(1000)) - 1
    assert torch.equal(path[-1], x_0)
    assert all(not torch.equal(a, b) for a, b in pairwise(path))


def test_deterministic_unless_asked():
    it, x_T = Cosine(50), torch.randn(3, 2)

    def run(step, seed):
        torch.manual_seed(seed)
        return Sampler(step)(Gaussian(it), it, x_T)

    assert torch.equal(run(DDIM(), 1), run(DDIM(), 2))
    assert torch.equal(run(DDPM(), 1), run(DDPM(), 1))
    assert not torch.equal(run(DDPM(), 1), run(DDPM(), 2))


def test_noise_is_the_callers():
    it, x_T, drawn = Cosine(50), torch.randn(3, 2), []

    def randn_like(x):
        drawn.append(x.shape)
        return torch.zeros_like(x)

    state = torch.get_rng_state()
    Sampler(DDPM(), 10)(Gaussian(it), it, x_T, randn_like=randn_like)
    assert drawn == [x_T.shape] * 9  # the last step has no noise
    Sampler(DDIM(), 10)(Gaussian(it), it, x_T, randn_like=randn_like)
    assert len(drawn) == 9
    assert torch.equal(torch.get_rng_state(), state)


def test_grad_mode_is_off_inside_and_as_before_outside():
    it = Cosine(20)
    denoiser = NetworkDenoiser(Wavy(), it, Eps())
    sampler = Sampler(DDIM(), 3)
    for x in sampler.trajectory(denoiser, it, torch.randn(2, 1)):
        assert not x.requires_grad
        assert torch.is_grad_enabled()
    assert not sampler.encode(denoiser, it, torch.randn(2, 1)).requires_grad


def test_network_is_asked_at_the_grids_own_times():
    it, network = Linear(), Wavy()
    sampler = Sampler(DDIM(), 7, spacing="quadratic")
    sampler(NetworkDenoiser(network, it, Eps()), it, torch.randn(2, 1))
    assert [int(t[0]) for t in network.seen] == sampler.times(1000)[:-1].tolist()


def test_last_guidance_is_outermost():
    order = []

    class Note(Guidance):
        def __init__(self, name):
            self.name = name

        def guided(self, denoise, x_t, t, cond):
            pred = denoise(x_t, t, cond)
            order.append(self.name)
            return pred

    it = Cosine(10)
    Sampler(DDIM(), 1, [Note("inner"), Note("outer")])(Gaussian(it), it, torch.randn(2, 1))
    assert order == ["inner", "outer"]


def test_guidance_changes_every_step():
    """A dynamic threshold around a denoiser that leaves the range keeps all of the run in it."""
    it, x_T = Cosine(50), torch.randn(64, 2)
    wild = Gaussian(it, mean=3.0)
    assert Sampler(DDIM())(wild, it, x_T).abs().max() > 2
    assert Sampler(DDIM(), guidance=[Dynamic()])(wild, it, x_T).abs().max() <= 1


STEPS = [DDIM(), DDIM(0.5), DDPM("small"), DDPM("large"), DDIM(0.5, "large")]


def moments(sampler, data):
    """The exact mean and standard deviation of the samples of x_T ~ q(x_T).

    For Gaussian data a sampler is affine in x_T and in each step's noise; a row of the batch finds
    each of the coefficients.
    """
    it, count = data.process, len(sampler.times(data.process.T)) - 1
    x_T, rows = torch.zeros(count + 2, 1, dtype=torch.float64), iter(range(2, count + 2))
    x_T[1] = 1

    def randn_like(x):
        z = torch.zeros_like(x)
        z[next(rows)] = 1
        return z

    zero, *others = sampler(data, it, x_T, randn_like=randn_like)[:, 0]
    slope, *noise = torch.stack(others) - zero
    mean, std = data.marginal(it.T)
    variance = (slope * std) ** 2 + torch.stack(noise).square().sum()
    return (zero + slope * mean).item(), variance.sqrt().item()


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.eta}-{s.variance}")
def test_gaussian_data_is_reached(step, of):
    data = Gaussian(process(of, 400), 0.6, 0.4)
    for spacing in ("trailing", "linspace"):
        errors = []
        for steps in (50, 200, 400):
            mean, std = moments(Sampler(step, steps, spacing=spacing), data)
            errors.append(abs(mean - 0.6) + abs(std - 0.4))
        assert errors[0] < 0.07, (spacing, errors)
        assert errors[1] < 0.025, (spacing, errors)
        assert errors[2] < min(0.015, errors[0] / 2), (spacing, errors)


@pytest.mark.parametrize("it", [Linear(), Cosine(), RectifiedFlow(), Sohl2015()])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_ddim_error_is_of_first_order(it, spacing):
    """Against the solution of its ODE, which keeps each sample's place in the marginal's normal."""
    data = Gaussian(it, 0.6, 0.4)
    mean, std = data.marginal(1000)
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    exact = 0.6 + 0.4 * z
    errors = []
    for steps in (25, 50, 100, 200):
        x_0 = Sampler(DDIM(), steps, spacing=spacing)(data, it, mean + std * z)
        errors.append((x_0 - exact).abs().max().item())
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (slopes > 0.7).all(), errors
    assert (slopes < 1.6).all(), errors
    assert errors[-1] < 0.05


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("it", [Linear(), Cosine(), RectifiedFlow()])
def test_encode_is_the_inverse_of_ddim(it, spacing):
    data = Mixture(it, FOUR, 0.15)
    x_0 = FOUR.repeat(16, 1) + 0.15 * torch.randn(64, 2, dtype=torch.float64)
    errors = []
    for steps in (20, 100, 500):
        sampler = Sampler(DDIM(), steps, spacing=spacing)
        x_T = sampler.encode(data, it, x_0)
        errors.append((sampler(data, it, x_T) - x_0).square().mean().sqrt().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors
    assert errors[2] < 0.02, errors


@pytest.mark.parametrize("it", [Linear(), Cosine(), RectifiedFlow()])
def test_encoded_data_is_noise(it):
    """The ODE maps N(m, c²) to the marginal at T, each sample to its own place."""
    data, z = Gaussian(it, 0.6, 0.4), torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    mean, std = data.marginal(1000)
    errors = [
        (Sampler(DDIM(), steps).encode(data, it, 0.6 + 0.4 * z) - mean - std * z).abs().max()
        for steps in (100, 1000)
    ]
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 0.02


def test_encode_hands_the_condition_on():
    it, labels = Cosine(100), torch.tensor([0, 1, 0, 1])
    data = Mixture(it, FOUR, 0.1, labels)
    sampler, x_T = Sampler(DDIM(), 50), torch.randn(32, 2, dtype=torch.float64)
    cond = Condition({"label": torch.ones(32, dtype=torch.long)})
    x_0 = sampler(data, it, x_T, cond)
    distance = (x_0[:, None] - FOUR).norm(dim=2)
    assert set(distance.argmin(1).tolist()) == {1, 3}
    with_label = sampler.encode(data, it, FOUR[:1], Condition({"label": torch.tensor([1])}))
    assert (with_label - sampler.encode(data, it, FOUR[:1])).abs().max() > 0.1
