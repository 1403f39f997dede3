import math
from dataclasses import replace

import pytest
import torch
from exact import PROCESSES, Mixture, Wavy, process
from torch import nn

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser, Prediction
from diffusion.guidance import Classifier, ClassifierFree, ClassifierMean, NoiseAware, Static
from diffusion.parameterization import X0, Eps
from diffusion.process import Cosine, Linear, RectifiedFlow, ZeroTerminal
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM, DDPM, DPMSolver, Heun, RePaint

B = 6
MEANS = torch.tensor([[-0.5, 0.4], [-0.5, -0.4], [0.5, 0.4], [0.5, -0.4]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 1])


class Exact(NoiseAware):
    """p(y | x_t, t) of a mixture by Bayes' rule; the label −1 is ∅."""

    def __init__(self, data):
        super().__init__(data.process, DataSpec(None, (2,), 2))
        self.mixture = data

    def log_prob(self, x_t, t, cond):
        alpha, sigma = self.process.scales(t, x_t)
        a, s = (v if t.ndim == 0 else v.reshape(-1, 1, 1) for v in (alpha, sigma))
        variance = ((a * self.mixture.std) ** 2 + s**2).reshape(-1, 1)
        logits = self.mixture.log_likelihoods(x_t, variance, a)
        label = cond.values["label"][:, None]
        of_label = logits.masked_fill((label != LABELS) & (label != -1), -torch.inf)
        return of_label.logsumexp(1) - logits.logsumexp(1)


class Net(NoiseAware):
    """A classifier with weights, as unlike a linear one as a small one can be."""

    def __init__(self, shape=(1, 4, 4), name=None, classes=()):
        super().__init__(Linear(), DataSpec(name, shape, 3, classes))
        self.layer = nn.Linear(math.prod(shape), 3)
        self.seen = []

    def log_prob(self, x_t, t, cond):
        self.seen.append((x_t.dtype, len(x_t), torch.is_autocast_enabled("cpu")))
        logits = self.layer(torch.sin(3 * x_t.flatten(1)) * (1 + t.reshape(-1, 1) / 1000))
        return logits.log_softmax(1).gather(1, cond.values["label"][:, None])[:, 0]


def mixture(it, std=0.3):
    return Mixture(it, MEANS, std, labels=LABELS)


def unconditional(denoise):
    return lambda x_t, t, cond: denoise(x_t, t, Condition())


def batch(dtype=torch.float32):
    label = torch.arange(B) % 3
    return (
        torch.randn(B, 1, 4, 4, dtype=dtype),
        torch.tensor([1, 2, 100, 500, 900, 1000]),
        Condition({"label": label}, {"label": 3}),
    )


def denoiser(channels=1):
    return unconditional(NetworkDenoiser(Wavy(channels), Linear(), Eps()))


@pytest.mark.parametrize("of", PROCESSES)
def test_scale_one_with_exact_parts_is_the_exact_conditional_denoiser(of):
    it = process(of, 40)
    data, t = mixture(it), torch.arange(1, 41).repeat(8)
    cond = Condition({"label": torch.arange(320) % 2})
    alpha, sigma = it.lookup(t, torch.zeros(320, 2))
    x_t = (
        alpha * MEANS[torch.arange(320) % 4] + (0.3 * alpha + sigma) * torch.randn(320, 2).double()
    )
    guided = Classifier(1.0, Exact(data))(unconditional(data))
    found, wanted = guided(x_t, t, cond), data(x_t, t, cond)
    there = it.alpha[t] > 0
    assert there.sum() >= 312
    torch.testing.assert_close(found.x_0[there], wanted.x_0[there], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.eps[there], wanted.eps[there], rtol=1e-6, atol=1e-6)
    assert (wanted.x_0 - data(x_t, t).x_0)[there].abs().max() > 0.1
    for time in (1, 7, 39):
        rows = t == time
        one = guided(
            x_t[rows], torch.tensor(time), Condition({"label": cond.values["label"][rows]})
        )
        torch.testing.assert_close(one.x_0, found.x_0[rows])


@pytest.mark.parametrize("it", [RectifiedFlow(20), ZeroTerminal(Cosine(20))])
def test_without_any_signal_there_is_no_guidance(it):
    data, T = mixture(it), torch.tensor(20)
    x_t, cond = torch.randn(4, 2).double(), Condition({"label": torch.arange(4) % 2})
    guided = Classifier(3.0, Exact(data))(unconditional(data))
    assert torch.equal(guided(x_t, T, cond).x_0, data(x_t, T).x_0)
    t = torch.tensor([20, 19, 20, 1])
    mixed, alone = guided(x_t, t, cond), data(x_t, t)
    assert mixed.x_0.isfinite().all()
    assert (mixed.x_0 == alone.x_0).all(1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("it", [Linear(), Cosine(200), RectifiedFlow()])
@pytest.mark.parametrize(("step", "static"), [(DDIM(), False), (DDPM(), False), (DDPM(), True)])
def test_moves_samples_to_the_class(it, step, static):
    data, n = mixture(it, 0.5), 1500
    cond, x_T = Condition({"label": torch.ones(n, dtype=torch.long)}), torch.randn(n, 2)
    data.means = MEANS.float()

    def share(scale):
        guidance = [Classifier(scale, Exact(data)), *[Static()] * static]
        x_0 = Sampler(step, 50, guidance)(unconditional(data), it, x_T, cond)
        return (x_0[:, 0] > 0).double().mean().item()

    shares = [share(scale) for scale in (0.0, 1.0, 6.0)]
    assert abs(shares[0] - 0.5) < 0.05  # as in the data without labels
    # As in the class, Φ(0.5 / 0.5), but for the flow's first step, and for what was clipped.
    assert abs(shares[1] - 0.841) < 0.05
    assert shares[2] > 0.97


@pytest.mark.parametrize("s", [499, 400, 0])
@pytest.mark.parametrize("it", [Linear(), Cosine()])
def test_shifts_the_mean_of_the_ancestral_step(it, s):
    """By s (α_s / α_t) σ²_{t|s} g: for neighbours s Σ g / √(1 − β), Σ = β, of algorithm 1."""
    data, scale, t, s = mixture(it), 1.7, torch.tensor(500), torch.tensor(s)
    x_t, cond = torch.randn(8, 2).double(), Condition({"label": torch.arange(8) % 2})
    plain, exact = unconditional(data), Exact(data)
    guided = Classifier(scale, exact)(plain)
    means = [
        DDPM()(lambda x, t, d=d: d(x, t, cond), it, x_t, t, s, torch.zeros_like)
        for d in (guided, plain)
    ]
    g = torch.zeros_like(x_t)
    for axis in (0, 1):  # by differences, not by autograd
        h = torch.zeros_like(x_t)
        h[:, axis] = 1e-5
        both = [exact.log_prob(x_t + sign * h, t, cond) for sign in (1, -1)]
        g[:, axis] = (both[0] - both[1]) / 2e-5
    forward = it.sigma[500] ** 2 - (it.alpha[500] / it.alpha[s] * it.sigma[s]) ** 2
    shift = scale * it.alpha[s] / it.alpha[500] * forward * g
    torch.testing.assert_close(means[0] - means[1], shift, rtol=1e-6, atol=1e-9)
    if s == 499:
        beta = 1 - (it.alpha[500] / it.alpha[499]) ** 2
        torch.testing.assert_close(shift, scale * beta * g / (1 - beta).sqrt())


@pytest.mark.parametrize("of", [Linear, Cosine])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_algorithm_1_shifts_the_mean_by_the_steps_own_variance(of, variance):
    it = of()
    data, v = mixture(it), torch.rand(8, 2).double()
    sampler = Sampler(DDPM(variance), 10, [ClassifierMean(1.7, Exact(data))], "linspace")
    x_t, cond = torch.randn(8, 2).double(), Condition({"label": torch.arange(8) % 2})

    def plain(x, t, cond):
        return replace(data(x, t), v=v)

    (guide,) = sampler.begin(it)
    for t, s in ((1000, 889), (556, 445), (112, 1)):
        means = [
            sampler.step(
                lambda x, t, d=d: d(x, t, cond), it, x_t, torch.tensor(t), torch.tensor(s),
                torch.zeros_like,
            )
            for d in (guide(plain), plain)
        ]  # fmt: skip
        g = Classifier(1.0, Exact(data)).gradient(x_t, torch.tensor(t), cond)
        beta = 1 - (it.alpha[t] / it.alpha[s]) ** 2
        small = beta * (1 - it.alpha[s] ** 2) / (1 - it.alpha[t] ** 2)
        learned = torch.exp(v * beta.log() + (1 - v) * small.log())
        covariance = {"small": small, "large": beta, "learned": learned}[variance]
        torch.testing.assert_close(means[0] - means[1], 1.7 * covariance * g, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("step", [DDIM(), DDIM(0.5), Heun(), DPMSolver(eta=1.0), RePaint(Heun())])
def test_algorithm_1_is_of_ancestral_steps_alone(step):
    it, guide = Linear(), ClassifierMean(1.0, Net())
    with pytest.raises(ValueError, match=r"ClassifierMean shifts .*; expected the step"):
        Sampler(step, 10, [guide]).begin(it)
    Sampler(RePaint(DDPM()), 10, [guide]).begin(it)
    with pytest.raises(ValueError, match="no grid of times; expected a Sampler"):
        guide(denoiser())(*batch())


def test_is_the_papers_code_under_ddim():
    """Its algorithm 2 written down again: x̂_0 clipped, ε̂ from it, guided, x̂_0 not clipped again."""
    torch.manual_seed(1)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = (1 - betas).cumprod(0)
    net, wave = Net().double(), Wavy(size=0.8).double()
    x_T, label = torch.randn(B, 1, 4, 4).double(), torch.arange(B) % 3
    times, scale, x = range(999, -1, -100), 3.0, x_T
    for i, t in enumerate(times):
        bar, before = bars[t], bars[times[i + 1]] if i < 9 else torch.tensor(1.0).double()
        eps = wave(x, torch.full((B,), t + 1)).detach()
        x_0 = (x / bar.sqrt() - (1 / bar - 1).sqrt() * eps).clamp(-1, 1)
        eps = (x / bar.sqrt() - x_0) / (1 / bar - 1).sqrt()
        y = x.clone().requires_grad_()
        chosen = net.log_prob(y, torch.tensor(t + 1), Condition({"label": label})).sum()
        eps = eps - (1 - bar).sqrt() * scale * torch.autograd.grad(chosen, y)[0]
        x_0 = x / bar.sqrt() - (1 / bar - 1).sqrt() * eps
        x = x_0 * before.sqrt() + (1 - before).sqrt() * eps
    sampler = Sampler(DDIM(), 10, [Static(), Classifier(scale, net)])
    denoise = NetworkDenoiser(wave, Linear(), Eps())
    found = sampler(unconditional(denoise), Linear(), x_T, Condition({"label": label}))
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)
    clipped = Sampler(DDIM(), 10, [Classifier(scale, net), Static()])
    other = clipped(unconditional(denoise), Linear(), x_T, Condition({"label": label}))
    assert other.abs().max() <= 1 < found.abs().max()


def test_a_sample_does_not_depend_on_its_batch():
    x_t, t, cond = batch()
    guided = Classifier(4.0, Net())(denoiser())
    together = guided(x_t, t, cond).x_0
    for i in range(B):
        alone = Condition({"label": cond.values["label"][i : i + 1]})
        torch.testing.assert_close(
            guided(x_t[i : i + 1], t[i : i + 1], alone).x_0, together[i : i + 1]
        )


def test_scale_zero_is_exactly_unguided_and_the_shift_is_linear_in_the_scale():
    x_t, t, cond = batch(torch.float64)
    net = Net().double()
    denoise = unconditional(NetworkDenoiser(Wavy().double(), Linear(), Eps()))
    plain = denoise(x_t, t, cond)
    assert torch.equal(Classifier(0.0, net)(denoise)(x_t, t, cond).x_0, plain.x_0)
    assert net.seen == []
    one, half, back = (
        Classifier(s, net)(denoise)(x_t, t, cond).eps - plain.eps for s in (1.0, 0.5, -2.0)
    )
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(half, 0.5 * one)
    torch.testing.assert_close(back, -2 * one)


def test_single_time_is_a_batch_of_one_and_an_interval_has_both_ends():
    x_t, _, cond = batch()
    net, plain = Net(), denoiser()
    limited, everywhere = Classifier(3.0, net, (100, 900))(plain), Classifier(3.0, net)(plain)
    for time in (1, 99, 100, 500, 900, 901, 1000):
        t, several = torch.tensor(time), torch.full((B,), time)
        net.seen.clear()
        one, every = limited(x_t, t, cond), limited(x_t, several, cond)
        torch.testing.assert_close(one.x_0, every.x_0)
        inside = 100 <= time <= 900
        assert len(net.seen) == 1 + inside
        assert torch.equal(one.x_0, (everywhere if inside else plain)(x_t, t, cond).x_0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off_and_leaves_none_behind(mode):
    x_t, t, cond = batch()
    net, wave = Net(), Wavy()
    denoise = NetworkDenoiser(wave, Linear(), Eps())
    guided = Classifier(2.0, net)(unconditional(denoise))
    outside = guided(x_t, t, cond)
    assert outside.x_0.requires_grad  # through the network, which may be in training
    torch.testing.assert_close(
        torch.autograd.grad(outside.x_0.sum(), wave.weight)[0],
        torch.autograd.grad(denoise(x_t, t, Condition()).x_0.sum(), wave.weight)[0],
    )
    with mode():
        x_t, t = x_t + 0, t + 0  # made in this mode
        label = Condition({"label": cond.values["label"] + 0})
        inside = guided(x_t, t, label)
        torch.testing.assert_close(guided(x_t, torch.tensor(7), label).v, None)
        assert not inside.x_0.requires_grad
    torch.testing.assert_close(inside.x_0.clone(), outside.x_0.detach())
    assert all(p.grad is None for p in (*net.parameters(), wave.weight))


def test_the_gradient_is_of_full_precision_under_autocast():
    x_t, t, cond = batch()
    guidance = Classifier(2.0, Net())
    plain = guidance.gradient(x_t, t, cond)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(guidance.gradient(x_t, t, cond), plain)
        half = guidance.gradient(x_t.bfloat16(), t, cond)
    assert half.dtype == torch.bfloat16
    assert {(dtype, cast) for dtype, _, cast in guidance.classifier.seen} == {
        (torch.float32, False)
    }


def test_learned_variance_is_left_alone():
    x_t, t, cond = batch()
    plain = denoiser(channels=2)
    guided = Classifier(4.0, Net())(plain)(x_t, t, cond)
    assert guided.v is not None
    assert torch.equal(guided.v, plain(x_t, t, cond).v)
    torch.testing.assert_close(guided.alpha * guided.x_0 + guided.sigma * guided.eps, x_t)


def test_samples_without_a_label_are_not_guided():
    it, t = Linear(), torch.tensor(600)
    data = mixture(it)
    exact, x_t = Exact(data), torch.randn(4, 2).double()
    cond = Condition({"label": torch.arange(4) % 2}, {"label": -1})
    null = cond.drop()
    assert not Classifier(2.0, exact).gradient(x_t, t, null).any()
    g = Classifier(2.0, exact).gradient(x_t, t, cond)
    weight = it.sigma[600] ** 2 / it.alpha[600]
    inner = ClassifierFree(3.0)(Classifier(2.0, exact)(data))(x_t, t, cond).x_0
    one, other = data(x_t, t, cond).x_0, data(x_t, t, null).x_0
    torch.testing.assert_close(inner, other + 3 * (one + 2 * weight * g - other))
    outer = Classifier(2.0, exact)(ClassifierFree(3.0)(data))(x_t, t, cond).x_0
    torch.testing.assert_close(outer, other + 3 * (one - other) + 2 * weight * g)
    alone = Classifier(1.0, exact)(ClassifierFree(0.0)(data))(x_t, t, cond).x_0
    torch.testing.assert_close(alone, one)  # the label comes from the classifier only


def test_order_with_clipping():
    x_0 = torch.full((2, 1, 4, 4), 5.0)

    def denoise(x_t, t, cond):
        return Prediction(x_t, x_0, torch.tensor(0.1), torch.tensor(0.99))

    net, x_t, t = Net(), torch.randn(2, 1, 4, 4), torch.tensor(500)
    cond = Condition({"label": torch.tensor([0, 2])})
    shift = 30 * 0.99**2 / 0.1 * Classifier(1.0, net).gradient(x_t, t, cond)
    guidance = Classifier(30.0, net)
    first, last = guidance(Static()(denoise)), Static()(guidance(denoise))
    torch.testing.assert_close(first(x_t, t, cond).x_0, 1 + shift)
    torch.testing.assert_close(last(x_t, t, cond).x_0, (5 + shift).clamp(-1, 1))
    assert shift.abs().max() > 1


def test_its_evaluations_can_be_counted_and_it_moves_once():
    x_t, t, cond = batch()
    guidance, rows, moves = Classifier(2.0, Net()), [], []
    guidance.classifier.register_forward_hook(lambda m, args, out: rows.append(len(args[0])))
    guidance.classifier.to = lambda device: moves.append(device)
    both = ClassifierFree(2.0)(guidance(denoiser()))
    guidance(denoiser())(x_t, t, cond)
    both(x_t, t, Condition(cond.values, {"label": 0}))
    assert rows == [B, 2 * B]
    assert moves == [x_t.device]
    assert guidance.needs == ("label",)


def data(name="Fruit", shape=(1, 4, 4), num_classes=3, classes=()):
    return DataSpec(name, shape, num_classes, classes)


def test_accepts_what_it_was_trained_for():
    Classifier(1.0, Net(name="Fruit")).check(Linear(), data())
    Classifier(1.0, Net()).check(Linear(1000, 1e-4, 0.02), data())
    named = Net(name="Fruit", classes=["a", "b", "c"])
    Classifier(1.0, named).check(Linear(), data("Apples", classes=["a", "b", "c"]))


@pytest.mark.parametrize(
    ("process", "data", "message"),
    [
        (Linear(500), data(), r"it was trained with T = 1000; expected the model's .*, T = 500"),
        (
            Cosine(),
            data(),
            r"it was trained with α = [\d.]+ at t = \d+; expected the model's process, α = [\d.]+$",
        ),
        (
            Linear(),
            data(shape=(3, 4, 4)),
            r"trained on samples of shape \(1, 4, 4\); expected \(3, 4, 4\), as in Fruit",
        ),
        (Linear(), data(num_classes=7), r"trained on 3 classes; expected 7 classes, as in Fruit"),
        (Linear(), data("Shoes"), r"trained on the labels of Fruit; expected those of Shoes"),
        (
            Linear(),
            data(classes=["a", "pear", "c"]),
            r"trained on 'b' as class 1; expected 'pear', as in Fruit",
        ),
        (Linear(), data(num_classes=None), r"Classifier needs labels, Fruit has none; expected"),
    ],
)
def test_refuses_what_it_was_not_trained_for(process, data, message):
    with pytest.raises(ValueError, match=message) as error:
        Classifier(1.0, Net(name="Fruit", classes=["a", "b", "c"])).check(process, data)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("guidance")


def test_refuses_another_sigma_too():
    it = RectifiedFlow()
    other = RectifiedFlow()
    other.sigma = other.sigma**2
    net = Net()
    net.process = it
    with pytest.raises(ValueError, match=r"σ = 0\.5 at t = 500; expected .* σ = 0\.25"):
        Classifier(1.0, net).check(other, data())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": float("inf")}, r"guidance\.scale: inf; expected a finite number"),
        ({"scale": float("nan")}, r"guidance\.scale: nan; expected a finite number"),
        (
            {"scale": 2.0, "interval": (9, 3)},
            r"guidance\.interval: \(9, 3\); expected first ≤ last",
        ),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Classifier(classifier=Net(), **settings)


def test_what_cannot_score_is_refused():
    with pytest.raises(ValueError, match=r"guidance\.classifier: Linear; expected a NoiseAware"):
        Classifier(1.0, torch.nn.Linear(1, 1))


def test_a_missing_label_is_named():
    x_t, t, _ = batch()
    with pytest.raises(ValueError, match=r"Classifier needs the condition 'label', there is none"):
        Classifier(2.0, Net())(denoiser())(x_t, t, Condition())


def test_any_parameterization_is_guided_alike():
    x_t, t, cond = batch(torch.float64)
    net, data = Net().double(), denoiser_of(X0())
    shift = Classifier(2.0, net)(data)(x_t, t, cond).x_0 - data(x_t, t, cond).x_0
    ratio = (Linear().sigma[t] ** 2 / Linear().alpha[t]).reshape(-1, 1, 1, 1)
    gradient = Classifier(2.0, net).gradient(x_t, t, cond)
    torch.testing.assert_close(shift, 2 * ratio * gradient, rtol=1e-6, atol=1e-9)


def denoiser_of(parameterization):
    return unconditional(NetworkDenoiser(Wavy().double(), Linear(), parameterization))
