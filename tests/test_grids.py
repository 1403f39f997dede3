"""Grids that are spaced by the noise level, which few-step solvers want, and grids of one step."""

import pytest
import torch
from exact import PROCESSES, process

from diffusion.process import Cosine, Linear, Process, RectifiedFlow
from diffusion.sampler import Sampler
from diffusion.step import DDIM

SPACINGS = ["trailing", "leading", "linspace", "quadratic", "karras", "log_snr"]
# Karras et al. 2022, eq. 5 with N = 18, ρ = 7, from 80 to 0.002.
EDM = [
    *(80, 57.5859847, 40.7855738, 28.3745846, 19.3524530, 12.9100824, 8.40093531, 5.31519452),
    *(3.25682152, 1.92333984, 1.08817064, 0.585348123, 0.296442284, 0.139516469, 0.0599473112),
    *(0.0229345184, 0.00752801996, 0.002),
]


def levels(times, it):
    return (it.sigma / it.alpha)[times[:-1]]


def exploding(T, u_max):
    """x_t = x_0 + σ_t ε with log σ linear, so that any level is near some time."""
    sigma = torch.logspace(-3, torch.tensor(u_max).log10().item(), T, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    return Process(torch.ones(T + 1, dtype=torch.float64), torch.cat([zero, sigma]))


def test_karras_levels_are_edms():
    it = exploding(100_000, 80.0)
    times = Sampler(DDIM(), 18, spacing="karras").times(it)
    expected = torch.tensor(EDM, dtype=torch.float64)
    torch.testing.assert_close(levels(times, it), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("u_max", [20.0, 80.0, 3000.0])
def test_log_snr_levels_are_even(u_max):
    """From min(80, u_T) to 0.002, but the first one is T's."""
    it = exploding(100_000, u_max)
    times = Sampler(DDIM(), 21, spacing="log_snr").times(it)
    ratios = levels(times, it).log().diff()
    expected = (torch.tensor(0.002 / min(u_max, 80.0)).log() / 20).expand(19).double()
    torch.testing.assert_close(ratios[1:], expected, rtol=2e-3, atol=0)
    assert times[0] == 100_000


@pytest.mark.parametrize("it", [Linear(), Cosine(), RectifiedFlow()])
@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
def test_times_are_the_nearest(it, spacing):
    """Found by trying all, in log σ/α."""
    fine = exploding(1_000_000, (it.sigma / it.alpha)[-1].clamp(max=80).item())
    low = (it.sigma / it.alpha)[1].clamp(min=0.002).item()
    n, rho = 12, 7 if spacing == "karras" else 1e6
    ends = (low ** (1 / rho), fine.sigma[-1].item() ** (1 / rho))
    wanted = torch.linspace(*ends, n, dtype=torch.float64) ** rho
    all_levels = (it.sigma / it.alpha)[1:].log()
    nearest = (all_levels[:, None] - wanted.log()).abs().argmin(0) + 1
    expected = [1000, *nearest[:-1].flip(0).tolist(), 0]
    assert Sampler(DDIM(), n, spacing=spacing).times(it).tolist() == expected


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
def test_grids_of_any_length(of, spacing):
    for T in (24, 40):
        it = process(of, T)
        for steps in range(1, T + 1):
            times = Sampler(DDIM(), steps, spacing=spacing).times(it)
            assert (times[0], times[-1]) == (T, 0)
            assert (times.diff() < 0).all()
            assert 2 <= len(times) <= steps + 1
            assert times.dtype == torch.long


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_single_step_starts_at_the_end(spacing):
    assert Sampler(DDIM(), 1, spacing=spacing).times(Cosine(40)).tolist() == [40, 0]


@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
def test_noise_levels_need_the_process(spacing):
    sampler = Sampler(DDIM(), 5, spacing=spacing)
    with pytest.raises(ValueError, match=r"^process: T = 10; expected the process itself"):
        sampler.times(10)
