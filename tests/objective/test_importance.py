import math
import os

import pytest
import torch
from exact import Wavy
from torch import multiprocessing

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.noise import SeededNoise
from diffusion.objective import ImportanceSampled, Simple, VariationalBound
from diffusion.parameterization import Eps
from diffusion.process import Linear

T = 20


class Resampler:
    """Improved DDPM's section 3.3 as its text has it: a list of the last 10 losses for each t."""

    def __init__(self, depth=10, floor=0.001):
        self.losses, self.depth, self.floor = [[] for _ in range(T)], depth, floor

    def p(self):
        if any(len(x) < self.depth for x in self.losses):
            return [1 / T] * T
        size = [math.sqrt(sum(v * v for v in x) / self.depth) for x in self.losses]
        return [(1 - self.floor) * v / sum(size) + self.floor / T for v in size]

    def see(self, t, losses):
        for time, loss in zip(t.tolist(), losses.tolist()):
            self.losses[time - 1] = [*self.losses[time - 1], loss][-self.depth :]


@pytest.mark.parametrize("batch", [8, 200, 700])
def test_probabilities_follow_the_last_ten_losses(batch):
    """Also where one batch has more of a time than are remembered."""
    mine, theirs = ImportanceSampled(Simple()), Resampler()
    mine.draw(Linear(T), torch.zeros(1, 1), SeededNoise(0, [0]))
    for _ in range(max(3, 1200 // batch)):
        t = torch.randint(1, T + 1, (batch,))
        losses = torch.rand(batch) * t
        expected = torch.tensor(theirs.p())
        torch.testing.assert_close(mine.probabilities(T), expected, rtol=1e-5, atol=0)
        weighed = mine.weigh(t, losses)
        torch.testing.assert_close(weighed, losses / (T * expected[t - 1]), rtol=1e-5, atol=0)
        theirs.see(t, losses)
    assert mine.probabilities(T).max() > 1.5 / T
    assert mine.probabilities(T).sum().item() == pytest.approx(1)


def full(objective=None):
    """Returns one that has seen every time often, with losses that differ widely."""
    sampled = ImportanceSampled(objective or Simple())
    sampled.draw(Linear(T), torch.zeros(1, 1), SeededNoise(0, [0]))
    t = torch.arange(1, T + 1).repeat(10)
    sampled.weigh(t, 100.0 / t**2)
    return sampled


def test_times_are_drawn_as_often_as_they_should():
    sampled, n = full(), 40_000
    t, eps = sampled.draw(Linear(T), torch.zeros(n, 2), SeededNoise(0, range(n)))
    p = sampled.probabilities(T)
    count = torch.bincount(t, minlength=T + 1)[1:]
    assert ((count - n * p).abs() < 5 * (n * p * (1 - p)).sqrt() + 1).all()
    assert abs(eps.std() - 1) < 4 / (4 * n) ** 0.5


def test_the_weighted_mean_is_that_of_uniform_times():
    """E_{t ~ p}[L_t / (T p_t)] = E_t[L_t], exactly, whatever p is."""
    sampled = full()
    p = sampled.probabilities(T)
    losses = torch.linspace(1, 7, T)
    weighed = sampled.weigh(torch.arange(1, T + 1), losses)
    assert (p * weighed).sum().item() == pytest.approx(losses.mean().item(), rel=1e-5)


def test_it_estimates_the_bound_with_less_variance():
    denoiser = NetworkDenoiser(Wavy().double(), Linear(T, 0.005, 0.3), Eps())
    sampled, uniform = ImportanceSampled(VariationalBound()), VariationalBound()
    x_0 = torch.randint(0, 256, (4000, 1, 2), dtype=torch.float64) / 127.5 - 1

    noise = SeededNoise(0, range(len(x_0)))

    def estimate(objective):
        t, eps = objective.draw(denoiser.process, x_0, noise)
        losses = objective(denoiser, x_0, Condition(), t, eps).detach()
        return objective.weigh(t, losses)

    estimate(sampled)
    ours, theirs = estimate(sampled), estimate(uniform)
    error = math.sqrt((ours.var() + theirs.var()) / len(x_0))
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert ours.std() < 0.7 * theirs.std()


def test_validation_is_plain():
    """Fixed times give the other objective's loss, and nothing is remembered."""
    sampled = full(VariationalBound())
    before = sampled.state_dict()["history"].clone()
    denoiser = NetworkDenoiser(Wavy().double(), Linear(T), Eps())
    x_0, eps = torch.rand(2, 5, 1, 3, dtype=torch.float64)
    t = torch.arange(1, 6)
    given = (denoiser, x_0, Condition(), t, eps)
    torch.testing.assert_close(sampled(*given), VariationalBound()(*given))
    assert torch.equal(before, sampled.state_dict()["history"])


def test_it_goes_on_where_it_was():
    sampled, again = full(), ImportanceSampled(Simple())
    again.load_state_dict(sampled.state_dict())
    assert torch.equal(again.probabilities(T), sampled.probabilities(T))
    shallow = ImportanceSampled(Simple(), depth=3)
    shallow.load_state_dict(sampled.state_dict())
    torch.testing.assert_close(shallow.probabilities(T), torch.full((T,), 1 / T))


def test_a_loss_that_is_not_finite_does_not_spread():
    sampled = full()
    sampled.weigh(torch.tensor([3]), torch.tensor([math.nan]))
    assert sampled.probabilities(T).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"objective\.depth: 0; expected at least 1"),
        ({"floor": -0.1}, r"objective\.floor: -0\.1; expected 0 … 1"),
        ({"floor": math.nan}, r"objective\.floor: nan; expected 0 … 1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImportanceSampled(Simple(), **arguments)


def _process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    sampled = ImportanceSampled(Simple())
    sampled.draw(Linear(T), torch.zeros(1, 1), SeededNoise(0, [0]))
    for k in range(10):
        t = torch.arange(1, T + 1).roll(k + rank)[: T // 2 * 2]
        sampled.weigh(t, t.float() * (1 + rank) + k)
    torch.save(sampled.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_share_what_they_saw(tmp_path):
    multiprocessing.spawn(_process, (os.fspath(tmp_path),), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(one["history"], two["history"])
    assert (one["count"] == 20).all()
