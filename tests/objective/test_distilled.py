"""Distillation, on Gaussian data, where all that a teacher does is a known factor."""

import math
from itertools import pairwise

import pytest
import torch
from exact import Gaussian
from torch import nn

from diffusion.condition import Condition
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser, Prediction
from diffusion.guidance import ClassifierFree
from diffusion.objective import Distilled, LogitNormal, Simple, Teacher
from diffusion.parameterization import V
from diffusion.process import Cosine, RectifiedFlow
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM, DDPM, UniPC

SPEC = DataSpec("Points", (2,), None, (), None)
MEAN, STD = 0.7, 0.3
EACH = pytest.mark.parametrize("process", [Cosine(60), RectifiedFlow(60)])


class Exact(nn.Module):
    """v of the best denoiser of N(MEAN + label, STD²)."""

    def __init__(self, process):
        super().__init__()
        self.process, self.zero = process, nn.Parameter(torch.zeros(()))

    def forward(self, x_t, t, label=None):
        label = torch.zeros(len(x_t)) if label is None else label
        x = x_t - self.process.scales(t, x_t)[0] * label[:, None]
        x_0 = Gaussian(self.process, MEAN, STD)(x, t).x_0 + label[:, None]
        return V().target(x_0, self.process, t, x_t) + self.zero


class Made(Teacher):
    def __init__(self, process):
        self.process = process

    def read(self):
        return FrozenDenoiser(NetworkDenoiser(Exact(self.process), self.process, V()), SPEC)


def factor(process, times):
    """By how much DDIM at these times multiplies x_t − α_t m."""
    whole = 1.0
    for t, s in pairwise(times):
        (a_t, a_s), (s_t, s_s) = (
            table[[t, s]].tolist() for table in (process.alpha, process.sigma)
        )
        gain = STD**2 * a_t / ((a_t * STD) ** 2 + s_t**2)
        whole *= a_s * gain + s_s / s_t * (1 - a_t * gain)
    return whole


def line(process, times, mean):
    """x̃ = m + γ (x_t − α_t m), from the factor."""
    t, s = times[0], times[-1]
    ratio = (process.sigma[s] / process.sigma[t]).item()
    alpha_t, alpha_s = process.alpha[t].item(), process.alpha[s].item()
    slope = (factor(process, times) - ratio) / (alpha_s - ratio * alpha_t)
    return lambda x_t: mean + slope * (x_t - alpha_t * mean)


@EACH
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_step_that_is_several_has_the_closed_form(process, k):
    objective = Distilled(Made(process), 3, k)
    x_t = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)
    found = objective.taught(process, x_t, torch.tensor([1, 2, 3]), Condition())
    for row, i in enumerate((1, 2, 3)):
        times = [20 * i - 20 // k * m for m in range(k + 1)]
        torch.testing.assert_close(found[row], line(process, times, MEAN)(x_t[row]))


@EACH
def test_guidance_is_taught(process):
    """Guided by s, Gaussians of means 0 and 1 are one of the mean s."""
    objective = Distilled(Made(process), 3, 2, [ClassifierFree(2.5)])
    x_t = torch.linspace(-2, 2, 4, dtype=torch.float64).reshape(2, 2)
    cond = Condition({"label": torch.ones(2, dtype=torch.float64)}, {"label": 0.0})
    found = objective.taught(process, x_t, torch.tensor([3, 1]), cond)
    for row, times in enumerate(([60, 50, 40], [20, 10, 0])):
        torch.testing.assert_close(found[row], line(process, times, MEAN + 2.5)(x_t[row]))


def test_of_many_substeps_it_is_the_flow():
    """The ODE multiplies x_t − α_t m by the ratio of the marginals' standard deviations."""
    process = Cosine(4000)
    objective = Distilled(Made(process), 2, 2000)
    x_t, i = torch.full((1, 2), 1.5, dtype=torch.float64), torch.tensor([1])
    found = objective.taught(process, x_t, i, Condition())
    mean, std = Gaussian(process, MEAN, STD).marginal(2000)
    torch.testing.assert_close(
        found, torch.full_like(found, MEAN + STD / std * (1.5 - mean)), rtol=0, atol=1e-3
    )
    assert not math.isclose(line(process, [2000, 0], MEAN)(1.5), found[0, 0].item(), abs_tol=1e-2)


@EACH
def test_a_student_that_has_learnt_draws_what_the_teacher_draws(process):
    objective = Distilled(Made(process), 5, 3)

    def student(x_t, t, cond):
        x_0 = objective.taught(process, x_t, (5 * t // 60).expand(len(x_t)), cond)
        return Prediction(x_t, x_0, *process.scales(t, x_t))

    x_T = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)
    teacher = Made(process).read()
    drawn = Sampler(DDIM(), 15)(teacher, process, x_T)
    torch.testing.assert_close(Sampler(DDIM(), 5)(student, process, x_T), drawn)


def test_the_loss_is_at_the_students_times_and_0_for_it():
    """One step of an exact denoiser is its own x̂_0, so the teacher itself has learnt k = 1."""
    process, seen = Cosine(60), []
    denoiser = NetworkDenoiser(Exact(process), process, V())
    hook = denoiser.network.register_forward_hook(lambda _net, args, _out: seen.append(args[1]))
    t, eps = torch.tensor([1, 15, 16, 60]), torch.randn(4, 2).double()
    x_0 = torch.randn(4, 2).double()
    one, two = (
        LogitNormal(Distilled(Made(process), 4, k))(denoiser, x_0, Condition(), t, eps)
        for k in (1, 2)
    )
    hook.remove()
    assert seen[0].tolist() == [15, 15, 30, 60]
    torch.testing.assert_close(one, torch.zeros_like(one), atol=1e-12, rtol=0)
    assert (two > 1e-6).all()
    two.sum().backward()
    assert denoiser.network.zero.grad is not None


def test_what_does_not_fit_is_refused():
    process = Cosine(60)
    objective = Distilled(Made(process), 4)
    objective.check(process, SPEC)
    with pytest.raises(ValueError, match=r"objective\.teacher: it was trained with T = 60; exp"):
        objective.check(Cosine(20), SPEC)
    with pytest.raises(ValueError, match=r"objective\.teacher: it was trained on samples of shape"):
        LogitNormal(objective).check(process, DataSpec("Points", (3,), None, (), None))
    with pytest.raises(ValueError, match=r"objective\.steps: 40 of 2 each; expected at most"):
        Distilled(Made(process), 40).check(process, SPEC)
    other = Distilled(Made(process), 4)
    other.check(process, SPEC)
    other._read.denoiser.network.zero.data += 1
    objective.load_state_dict(objective.state_dict())
    with pytest.raises(ValueError, match=r"objective\.teacher: teacher_\w{16}; expected teacher_"):
        objective.load_state_dict(other.state_dict())


def test_it_is_drawn_as_it_was_taught_and_in_no_other_way():
    process, objective = Cosine(60), LogitNormal(Distilled(Made(Cosine(60)), 4, 3))

    def check(sampler, objective=objective):
        objective.check_drawing(process, sampler.step, sampler.times(process))

    check(Sampler(DDIM(), 4))
    check(Sampler(DDIM(), 4, strength=0.5))  # from 30, which is one of its times
    for n, spacing in ((2, "trailing"), (12, "trailing"), (4, "leading")):
        with pytest.raises(ValueError, match=rf"{n} steps over .* 4, .*trailing, .* \[60, 45, 30,"):
            check(Sampler(DDIM(), n, spacing=spacing))
    with pytest.raises(ValueError, match=r"times \[36, 30, 15, 0\]; expected"):
        check(Sampler(DDIM(), 4, strength=0.6))
    with pytest.raises(ValueError, match=r"step: DDPM of eta 1.0; expected DDIM of eta 0"):
        check(Sampler(DDPM(), 4))
    with pytest.raises(ValueError, match=r"step: UniPC; expected DDIM"):
        check(Sampler(UniPC(), 4))
    check(Sampler(UniPC(), 7), Simple())
