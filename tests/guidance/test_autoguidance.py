import pytest
import torch
from exact import Gaussian, Wavy
from torch import nn

from diffusion.condition import Condition
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser
from diffusion.guidance import Autoguidance, ClassifierFree
from diffusion.parameterization import V, Velocity
from diffusion.process import Cosine, RectifiedFlow
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM

SPEC = DataSpec("Points", (1, 2), None, (), None)


class Exact(nn.Module):
    """The output F = ε − x_0 of the exact denoiser of N(m, c²), whose mean moves with a label."""

    def __init__(self, process, mean=0.7, std=0.3):
        super().__init__()
        self.process, self.mean, self.std = process, mean, std

    def forward(self, x_t, t, label=None):
        out = []
        for i in range(len(x_t)):
            shift = 0.0 if label is None else 0.5 * label[i].item()
            data = Gaussian(self.process, self.mean + shift, self.std)
            pred = data(x_t[i : i + 1], t[i])
            out.append(pred.eps - pred.x_0)
        return torch.cat(out)


def worse(process, **data):
    return FrozenDenoiser(NetworkDenoiser(Exact(process, **data), process, Velocity()), SPEC)


def good(process, **data):
    return NetworkDenoiser(Exact(process, **data), process, Velocity())


def test_two_gaussians_of_one_mean_give_the_closed_form():
    """x̂_0 is linear in x_t: its gain is w times the good one's plus 1 − w times the bad one's."""
    process, w = RectifiedFlow(100), 2.5
    guided = Autoguidance(w, worse(process, std=0.6))(good(process))
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for t in (1, 40, 99):
        a, s = process.alpha[t], process.sigma[t]
        gain = [c * c * a / (a * a * c * c + s * s) for c in (0.3, 0.6)]
        mixed = w * gain[0] + (1 - w) * gain[1]
        expected = 0.7 + mixed * (x_t - a * 0.7)
        found = guided(x_t, torch.tensor(t), Condition())
        torch.testing.assert_close(found.x_0, expected)
        torch.testing.assert_close(found.alpha * found.x_0 + found.sigma * found.eps, x_t)


def test_samples_are_narrower_and_keep_the_mean():
    """As the guided ODE is linear, what a sampler makes of N(0, 1) is known from two points.

    The bad model is wider, so guidance makes the samples narrower than the data, about its mean.
    """
    process = RectifiedFlow(200)
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    made = {}
    for w in (1.0, 2.0):
        sampler = Sampler(DDIM(), 200, [Autoguidance(w, worse(process, std=0.5))])
        *_, made[w] = sampler.trajectory(good(process), process, ends, Condition(), None)
    std = {w: (x[1] - x[0]).item() / 2 for w, x in made.items()}
    assert std[1.0] == pytest.approx(0.3, rel=0.03)
    assert std[2.0] < 0.85 * std[1.0]
    assert made[2.0].mean().item() == pytest.approx(0.7, abs=0.03)


def test_1_is_the_good_model_alone_and_0_the_bad_one():
    process = RectifiedFlow(50)
    bad = worse(process, mean=-1.0)
    calls = []
    bad.register_forward_hook(lambda *_: calls.append(1))
    x_t, t = torch.randn(3, 1, dtype=torch.float64), torch.tensor([2, 20, 49])
    alone = good(process)(x_t, t, Condition()).x_0
    torch.testing.assert_close(Autoguidance(1, bad)(good(process))(x_t, t, Condition()).x_0, alone)
    assert not calls
    other = bad(x_t, t, Condition()).x_0
    torch.testing.assert_close(Autoguidance(0, bad)(good(process))(x_t, t, Condition()).x_0, other)
    inside = Autoguidance(0, bad, interval=(10, 30))(good(process))(x_t, t, Condition()).x_0
    torch.testing.assert_close(inside, torch.stack([alone[0], other[1], alone[2]]))


def test_both_orders_with_classifier_free_guidance():
    process, w, s = RectifiedFlow(50), 1.7, 2.2
    bad, denoise = worse(process, std=0.8), good(process)
    x_t, t = torch.randn(4, 1, dtype=torch.float64), torch.tensor(20)
    cond = Condition({"label": torch.tensor([1, 2, 1, 2])}, {"label": 0})
    D = {
        (name, y): part(x_t, t, cond if y else cond.drop()).x_0
        for name, part in (("good", denoise), ("bad", bad))
        for y in (0, 1)
    }
    auto = [D["bad", y] + w * (D["good", y] - D["bad", y]) for y in (0, 1)]
    guides = [Autoguidance(w, bad), ClassifierFree(s)]
    both = guides[1](guides[0](denoise))(x_t, t, cond).x_0
    torch.testing.assert_close(both, auto[0] + s * (auto[1] - auto[0]))
    free = D["good", 0] + s * (D["good", 1] - D["good", 0])
    other = guides[0](guides[1](denoise))(x_t, t, cond).x_0
    torch.testing.assert_close(other, D["bad", 1] + w * (free - D["bad", 1]))


def test_parameterisations_may_differ_and_others_are_refused():
    process = Cosine(20)
    bad = FrozenDenoiser(NetworkDenoiser(Wavy().double(), process, V()), SPEC)
    guide = Autoguidance(2, bad)
    assert guide.networks == (bad,)
    guide.check(process, SPEC)
    with pytest.raises(ValueError, match=r"guidance\.bad: it was trained with T = 20; expected"):
        guide.check(Cosine(30), SPEC)
    with pytest.raises(ValueError, match=r"guidance\.bad: it was trained on samples of shape"):
        guide.check(process, DataSpec("Points", (3, 2), None, (), None))
    with pytest.raises(ValueError, match=r"guidance\.bad: Linear; expected a FrozenDenoiser"):
        Autoguidance(2, nn.Linear(1, 1))


def test_it_guides_from_a_checkpoint_by_yaml(fitted, run):
    guide = (
        "{class_path: Autoguidance, init_args: {scale: 2.0, bad: {class_path: TrainedDenoiser, "
        f"init_args: {{checkpoint: {fitted.last}}}}}}}}}"
    )
    draw = ("predict", "--ckpt_path", fitted.last, "--data.samples=2", "--writer.format=npz")
    run(*draw, f"--model.sampler.guidance=[{guide}]", "--writer.folder=guided")
    run(*draw, "--model.sampler.guidance=[]", "--writer.folder=plain")
    text = (run.folder / "guided/settings.json").read_text()
    assert "Autoguidance" in text
    assert "TrainedDenoiser" in text
