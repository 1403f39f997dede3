import pytest
import torch
from exact import PROCESSES, Mixture, process

from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver, RePaint

POINT = torch.tensor([[0.4]], dtype=torch.float64)


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def test_once_is_the_step_itself():
    it, x_T = Cosine(), torch.randn(5, 1, dtype=torch.float64)
    data = Mixture(it, torch.tensor([[-0.8], [0.7]], dtype=torch.float64), 0.2)
    once = Sampler(RePaint(DDPM(), 1), 10)(data, it, x_T, randn_like=seeded())
    assert torch.equal(once, Sampler(DDPM(), 10)(data, it, x_T, randn_like=seeded()))


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("step", [DDPM(), DDIM(), DPMSolver()], ids=lambda s: type(s).__name__)
def test_marginals_stay_what_they_are(of, step):
    """One picture: any step to s gives q(x_s | x_0), and going back up must give q(x_t | x_0)."""
    it, n = process(of, 60), 4000
    sampler = Sampler(RePaint(step, 4), 5)
    alpha, sigma = it.alpha[-1], it.sigma[-1]
    x_T = alpha * POINT + sigma * seeded(0)(torch.empty(n, 1, dtype=torch.float64))
    path = sampler.trajectory(Mixture(it, POINT, 0.0), it, x_T, randn_like=seeded())
    for x, t in zip(path, sampler.times(it)[1:]):
        std = it.sigma[t].item()
        assert abs(x.mean() - it.alpha[t] * 0.4) < 4.5 * std / n**0.5 + 1e-9
        assert abs(x.std() - std) < 4.5 * std / (2 * n) ** 0.5 + 1e-9


def test_it_costs_what_it_says():
    it = Cosine()
    data = Mixture(it, POINT, 0.1)
    Sampler(RePaint(DDPM(), 4), 10)(data, it, torch.randn(2, 1, dtype=torch.float64))
    assert len(data.calls) == 9 * 4 + 1


def test_less_than_once_is_refused():
    with pytest.raises(ValueError, match=r"step.repeats: 0; expected at least 1"):
        RePaint(DDPM(), 0)


def test_its_variance_is_that_of_the_step():
    assert RePaint(DDPM("learned")).variance == "learned"
