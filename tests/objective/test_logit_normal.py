import math

import pytest
import torch
from exact import Wavy
from scipy.special import logit, ndtr, ndtri

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.objective import LogitNormal, MinSNR, Simple
from diffusion.parameterization import V
from diffusion.process import Cosine


def density(u, mean, std):
    """Esser et al. 2024, eq. 19."""
    z = (math.log(u / (1 - u)) - mean) / std
    return math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi) * u * (1 - u))


@pytest.mark.parametrize(("mean", "std", "T"), [(0, 1, 10), (-1.2, 0.6, 40), (0.5, 2, 1000)])
def test_times_have_the_densitys_integrals_as_probabilities(mean, std, T):
    """The map from a normal to t, on a million quantiles: no chance is involved."""
    n = 1_000_000
    normal = torch.from_numpy(ndtri((torch.arange(n).double().numpy() + 0.5) / n))
    t = LogitNormal(Simple(), mean, std).times(normal, T)
    assert t.min() >= 1
    found = torch.bincount(t, minlength=T + 1)[1:].double() / n
    edges = ndtr((logit(torch.linspace(0, 1, T + 1, dtype=torch.float64).numpy()) - mean) / std)
    expected = torch.from_numpy(edges).diff()
    assert expected.sum().item() == pytest.approx(1)
    assert (found - expected).abs().max() <= 1.01 / n
    k = T // 3  # the density itself, by Simpson's rule over one cell
    left, right = (k - 1) / T, k / T
    ends = density(left, mean, std) + density(right, mean, std)
    simpson = (ends + 4 * density((left + right) / 2, mean, std)) / (6 * T)
    assert simpson == pytest.approx(expected[k - 1].item(), rel=0.02 if T < 1000 else 1e-6)


def test_it_draws_such_times_and_keeps_the_others_loss():
    objective = LogitNormal(MinSNR(), -0.5, 0.8)
    denoiser = NetworkDenoiser(Wavy().double(), Cosine(50), V())
    x_0 = torch.zeros(40_000, 1, 2, dtype=torch.float64)
    t, eps = objective.draw(denoiser.process, x_0, SeededNoise(0, range(len(x_0))))
    z = logit((t.double().numpy() - 0.5) / 50)
    assert z.mean() == pytest.approx(-0.5, abs=0.02)
    assert z.std() == pytest.approx(0.8, abs=0.03)
    given = (denoiser, x_0[:9], Condition(), t[:9], eps[:9])
    torch.testing.assert_close(objective(*given), MinSNR()(*given))
    assert objective.weigh(t, eps[:, 0, 0]) is eps[:, 0, 0] or torch.equal(
        objective.weigh(t, eps[:, 0, 0]), eps[:, 0, 0]
    )


def test_times_at_the_ends_of_the_range():
    far = torch.tensor([-1e4, 1e4])
    assert LogitNormal(Simple()).times(far, 7).tolist() == [1, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": math.nan}, r"objective\.mean: nan; expected a finite number"),
        ({"std": 0.0}, r"objective\.std: 0\.0; expected a positive number"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogitNormal(Simple(), **arguments)
