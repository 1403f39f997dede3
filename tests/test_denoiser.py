import pytest
import torch
from exact import PROCESSES, Wavy, process
from torch import nn

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser, Prediction
from diffusion.parameterization import X0, Eps, V
from diffusion.process import Linear

B = 6


@pytest.mark.parametrize("of", PROCESSES)
def test_prediction_holds_its_identity(of):
    it = process(of, 30)
    x_t = torch.randn(30, 2, dtype=torch.float64)
    denoiser = NetworkDenoiser(Wavy().double(), it, V())
    pred = denoiser(x_t, torch.arange(1, 31), Condition())
    alpha, sigma = it.alpha[1:, None], it.sigma[1:, None]
    for other in (pred, pred.with_x_0(torch.randn_like(x_t))):
        torch.testing.assert_close(alpha * other.x_0 + sigma * other.eps, x_t)
    assert not torch.equal(other.eps, pred.eps)
    if it.alpha[-1] > 0:
        eps = torch.randn_like(x_t)
        moved = pred.with_eps(eps)
        torch.testing.assert_close(moved.eps, eps)
        torch.testing.assert_close(alpha * moved.x_0 + sigma * eps, x_t)


def test_copies_keep_the_rest():
    x = torch.ones(2, 1)
    pred = Prediction(x, 2 * x, torch.tensor(0.6), torch.tensor(0.8), v=3 * x)
    for other in (pred.with_x_0(0 * x), pred.with_eps(0 * x)):
        assert other.x_t is pred.x_t
        assert other.v is pred.v
    torch.testing.assert_close(pred.x_0, 2 * x)
    torch.testing.assert_close(pred.with_eps(0 * x).x_0, x / 0.6)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
def test_single_time_is_a_batch_of_one(parameterization, channels):
    network = Wavy(channels)
    denoiser = NetworkDenoiser(network, Linear(), parameterization)
    x_t = torch.randn(B, 1, 4, 4)
    for t in (1, 500, 1000):
        one = denoiser(x_t, torch.tensor(t), Condition())
        every = denoiser(x_t, torch.full((B,), t), Condition())
        assert torch.equal(one.x_0, every.x_0)
        assert torch.equal(one.eps, every.eps)
        assert (one.v is None) == (channels == 1)
        if one.v is not None:
            assert torch.equal(one.v, every.v)
    assert all(t.shape == (B,) and t.dtype == torch.long for t in network.seen)


def test_doubled_channels_are_mean_and_variance():
    """Channels first … C are F, the rest v in −1 … 1, which becomes 0 … 1 (guided-diffusion)."""

    class Constant(nn.Module):
        def forward(self, x_t, t):
            parts = [0.25 * torch.ones_like(x_t), torch.ones_like(x_t), -torch.ones_like(x_t)]
            return torch.cat([parts[0], parts[1][:, :1], parts[2][:, :1]], 1)

    pred = NetworkDenoiser(Constant(), Linear(), X0())(
        torch.randn(B, 2, 3), torch.tensor(5), Condition()
    )
    assert (pred.x_0 == 0.25).all()
    assert (pred.v[:, 0] == 1).all()
    assert (pred.v[:, 1] == 0).all()


def test_conditions_reach_the_network_by_name():
    denoiser = NetworkDenoiser(Wavy(), Linear(), Eps())
    x_t, t = torch.randn(1, 1).expand(3, 1), torch.tensor([9, 9, 9])
    out = denoiser(x_t, t, Condition({"label": torch.tensor([0, 1, 1])})).eps
    torch.testing.assert_close(out[1], out[2])
    assert (out[0] - out[1]).abs() > 1e-3


def test_output_has_the_samples_dtype():
    class Half(nn.Module):
        def forward(self, x_t, t):
            return torch.cat([x_t, x_t], 1).bfloat16()

    pred = NetworkDenoiser(Half(), Linear(), Eps())(torch.randn(2, 1), torch.tensor(1), Condition())
    assert pred.x_0.dtype == pred.eps.dtype == pred.v.dtype == torch.float32
