import numpy as np
import pytest
from scipy.integrate import quad

from diffusion.systems.averages.power import Power, gamma_of, width_of


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.1, 6.94)])
def test_widths_of_the_paper(width, gamma):
    assert gamma_of(width) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 6.94, 50.0])
def test_the_width_is_the_standard_deviation_of_the_profile(gamma):
    mean = quad(lambda u: (gamma + 1) * u ** (gamma + 1), 0, 1)[0]
    square = quad(lambda u: (gamma + 1) * u ** (gamma + 2), 0, 1)[0]
    width = width_of(gamma)
    assert width == pytest.approx((square - mean**2) ** 0.5, rel=1e-6)
    assert gamma_of(width) == pytest.approx(gamma, abs=1e-6)


@pytest.mark.parametrize("width", [0.03, 0.1, 0.25])
def test_the_updates_are_the_integral(width):
    """Over weights that stay as they are between two updates, by quadrature of τ^γ θ(τ)."""
    rate, theta = Power(width), np.random.RandomState(0).standard_normal(40)
    average = 123.0  # initial weights do not count
    for n, value in enumerate(theta, 1):
        average = rate(n) * average + (1 - rate(n)) * value
    gamma = gamma_of(width)
    pieces = [quad(lambda u: (u / 40) ** gamma, n - 1, n)[0] * v for n, v in enumerate(theta, 1)]
    assert average == pytest.approx((gamma + 1) / 40 * sum(pieces), rel=1e-8)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, float("nan")])
def test_a_width_out_of_range(width):
    with pytest.raises(ValueError, match=r"width: .*; expected σ_rel above 0 and at most 0\.2887"):
        Power(width)
