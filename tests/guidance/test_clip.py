import math

import pytest
import torch
from exact import PROCESSES, Gaussian, Mixture, Wavy, process
from torch import nn

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser, Prediction
from diffusion.guidance import Classifier, ClassifierFree, Clip, NoiseAware, Static, TextScore
from diffusion.guidance.clip import OFFSETS
from diffusion.objective import Simple
from diffusion.parameterization import Eps
from diffusion.process import Cosine, Linear, RectifiedFlow, ZeroTerminal
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion

B = 6
SHAPE = (1, 4, 4)


class Directions(TextScore):
    """⟨x, d⟩ with a direction d for each text: its gradient is d, at any time."""

    def __init__(self, of=None, shape=SHAPE, clean=True):
        super().__init__(of, shape, clean)
        self.seen = []

    def read(self, texts):
        rows = [torch.Generator().manual_seed(len(text)) for text in texts]
        return {"clip": torch.stack([torch.randn(self.shape, generator=g) for g in rows])}

    def score(self, x, t, cond):
        self.seen.append((x.dtype, len(x), torch.is_autocast_enabled("cpu"), t))
        return (x * cond.values["clip"].to(x.dtype)).flatten(1).sum(1)


class Net(TextScore):
    """A scorer with weights, not linear."""

    def __init__(self, of=None, clean=True):
        super().__init__(of, SHAPE, clean)
        self.layer = nn.Linear(16, 3)
        self.seen = []

    def read(self, texts):
        return {"clip_row": torch.tensor([len(text) % 3 for text in texts])}

    def score(self, x, t, cond):
        self.seen.append((x.dtype, len(x), torch.is_autocast_enabled("cpu"), t))
        logits = self.layer(torch.sin(2 * x.flatten(1)) * (1 + t.reshape(-1, 1) / 1000))
        return logits.gather(1, cond.values["clip_row"][:, None])[:, 0]


TEXTS = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]


def batch(guide, dtype=torch.float32):
    t = torch.tensor([1, 2, 100, 500, 900, 1000])
    return torch.randn(B, *SHAPE, dtype=dtype), t, Condition(guide.read({"text": TEXTS}))


def denoiser(channels=1, dtype=torch.float32):
    network = Wavy(channels).to(dtype)
    network.null = {}  # none of the guide's
    return NetworkDenoiser(network, Linear(), Eps())


def test_a_linear_score_moves_x_0_by_its_direction():
    guide = Clip(1.7, Directions(Linear()))
    x_t, t, cond = batch(guide)
    shift = guide(denoiser())(x_t, t, cond).x_0 - denoiser()(x_t, t, cond).x_0
    ratio = (Linear().sigma[t] ** 2 / Linear().alpha[t]).reshape(-1, 1, 1, 1).float()
    wanted = 1.7 * ratio * cond.values["clip"]
    torch.testing.assert_close(shift, wanted, rtol=1e-4, atol=1e-4)
    clean = Clip(1.7, Directions(), on="x_0")  # ∂x̂_0 / ∂x_t taken for 1 / α_t
    shift = clean(denoiser())(x_t, t, cond).x_0 - denoiser()(x_t, t, cond).x_0
    alpha = Linear().alpha[t].reshape(-1, 1, 1, 1).float()
    torch.testing.assert_close(shift, wanted / alpha, rtol=1e-4, atol=1e-4)
    assert clean.scorer.seen[0][-1].item() == 0


@pytest.mark.parametrize("through", [False, True])
def test_through_the_denoiser_is_the_chain_rule(through):
    """For data N(m, c²) the denoiser is linear: ∂x̂_0/∂x_t = c² α / (α² c² + σ²)."""
    it = Cosine(40)
    data, c = Gaussian(it), 0.3
    guide = Clip(2.0, Directions(), on="x_0", through=through)
    cond = Condition(guide.read({"text": TEXTS}))
    for time in (1, 20, 39):
        x_t, t = torch.randn(B, *SHAPE, dtype=torch.float64), torch.tensor(time)
        alpha, sigma = it.alpha[time], it.sigma[time]
        slope = c**2 * alpha / ((alpha * c) ** 2 + sigma**2) if through else 1 / alpha
        wanted = 2 * sigma**2 / alpha * slope * cond.values["clip"].double()
        found = guide(data)(x_t, t, cond)
        torch.testing.assert_close(found.x_0 - data(x_t, t).x_0, wanted, rtol=1e-6, atol=1e-9)
        assert torch.equal(found.x_t, x_t)
    # Where there is next to no noise, a fixed ε̂ is right: the two agree.
    assert abs(c**2 * it.alpha[1] ** 2 / ((it.alpha[1] * c) ** 2 + it.sigma[1] ** 2) - 1) < 0.05


def test_through_a_network_is_the_difference_of_scores():
    guide = Clip(1.0, Net().double(), on="x_0", through=True)
    denoise = denoiser(2, torch.float64)  # with a learned variance
    x_t, t, cond = batch(guide, torch.float64)
    pred, gradient = guide.evaluate(denoise, x_t, t, cond)
    plain = denoise(x_t, t, cond)
    torch.testing.assert_close(pred.x_0, plain.x_0)
    torch.testing.assert_close(guide(denoise)(x_t, t, cond).v, plain.v)
    h = 1e-6
    for place in ((0, 0, 0), (0, 2, 3)):
        step = torch.zeros_like(x_t)
        step[(slice(None), *place)] = h
        both = [
            guide.scorer(denoise(x_t + sign * step, t, cond).x_0, torch.tensor(0), cond)
            for sign in (1, -1)
        ]
        torch.testing.assert_close(
            gradient[(slice(None), *place)],
            (both[0] - both[1]).detach() / (2 * h),
            rtol=1e-5,
            atol=1e-6,
        )


def test_through_goes_through_the_guidance_in_front():
    guide = Clip(1.0, Directions(), on="x_0", through=True)
    x_t, t, cond = batch(guide)
    _, gradient = guide.evaluate(Static()(denoiser()), x_t, t, cond)
    clipped = denoiser()(x_t, t, cond).x_0.abs() > 1
    assert clipped.any()
    assert not gradient[clipped].any()  # what is clipped does not move
    assert gradient[~clipped].all()
    inner = Clip(2.0, Net(), on="x_0", through=True)
    cond = Condition({**cond.values, **inner.read({"text": TEXTS})})
    _, gradient = guide.evaluate(denoiser(), x_t, t, cond)
    pred, outer = guide.evaluate(inner(denoiser()), x_t, t, cond)
    torch.testing.assert_close(outer, gradient)  # the inner shift counts as constant
    assert not torch.allclose(pred.x_0, denoiser()(x_t, t, cond).x_0)


class Exact(TextScore):
    """log p(side | x_t, t) of a mixture, "left" or "right", by Bayes' rule."""

    def __init__(self, data, sides):
        super().__init__(data.process, (2,))
        self.data, self.sides = data, sides

    def read(self, texts):
        return {"clip": torch.tensor([["left", "right"].index(text) for text in texts])}

    def score(self, x, t, cond):
        alpha, sigma = self.process.scales(t, x)
        a, s = (v if t.ndim == 0 else v.reshape(-1, 1, 1) for v in (alpha, sigma))
        variance = ((a * self.data.std) ** 2 + s**2).reshape(-1, 1)
        logits = self.data.log_likelihoods(x, variance, a)
        other = cond.values["clip"][:, None] != self.sides
        return logits.masked_fill(other, -torch.inf).logsumexp(1) - logits.logsumexp(1)


MEANS = torch.tensor([[-0.5, 0.4], [-0.5, -0.4], [0.5, 0.4], [0.5, -0.4]], dtype=torch.float64)
SIDES = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize("of", PROCESSES)
def test_with_an_exact_score_it_is_the_exact_conditional_denoiser(of):
    it = process(of, 40)
    data = Mixture(it, MEANS, 0.3, labels=SIDES)
    guide = Clip(1.0, Exact(data, SIDES))
    x_t, t = torch.randn(160, 2).double(), torch.arange(1, 41).repeat(4)
    values = guide.read({"text": ["left", "right"] * 80})
    found = guide(lambda x, t, cond: data(x, t))(x_t, t, Condition(values))
    wanted = data(x_t, t, Condition({"label": values["clip"]}))
    there = it.alpha[t] > 0
    torch.testing.assert_close(found.x_0[there], wanted.x_0[there], rtol=1e-6, atol=1e-6)


def test_samples_go_to_where_the_text_says():
    it, n = Cosine(200), 600
    data = Mixture(it, MEANS.float(), 0.3, labels=SIDES)
    guide = Clip(1.0, Exact(data, SIDES))
    cond = Condition(guide.read({"text": ["left", "right"] * (n // 2)}))
    sampler = Sampler(DDIM(), 50, [guide])
    x = sampler(lambda x, t, cond: data(x, t), it, torch.randn(n, 2), cond)
    share = 0.5 * (1 + math.erf(0.5 / 0.3 / math.sqrt(2)))  # of N(0.5, 0.3²) beyond 0
    for side in (0, 1):
        assert abs(((x[side::2, 0] > 0) == side).double().mean().item() - share) < 0.04


@pytest.mark.parametrize("it", [RectifiedFlow(20), ZeroTerminal(Cosine(20))])
@pytest.mark.parametrize(
    "settings", [{"on": "x_t"}, {"on": "x_0"}, {"on": "x_0", "through": True}], ids=str
)
def test_without_any_signal_there_is_no_guidance(it, settings):
    guide, data = Clip(3.0, Directions(it), **settings), Gaussian(it)
    x_t, cond = torch.randn(4, *SHAPE), Condition(guide.read({"text": TEXTS[:4]}))
    T = torch.tensor(20)
    assert torch.equal(guide(data)(x_t, T, cond).x_0, data(x_t, T).x_0)
    t = torch.tensor([20, 19, 20, 1])
    mixed, alone = guide(data)(x_t, t, cond), data(x_t, t)
    assert mixed.x_0.isfinite().all()
    assert (mixed.x_0 == alone.x_0).flatten(1).all(1).tolist() == [True, False, True, False]


WAYS = [{"on": "x_t"}, {"on": "x_0"}, {"on": "x_0", "through": True}, {"on": "x_t", "shifts": 4}]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_a_sample_does_not_depend_on_its_batch(settings):
    guide = Clip(4.0, Net(Linear()), **settings)
    x_t, t, cond = batch(guide)
    guided = guide(denoiser())
    together = guided(x_t, t, cond).x_0
    for i in range(B):
        alone = Condition({k: v[i : i + 1] for k, v in cond.values.items()})
        found = guided(x_t[i : i + 1], t[i : i + 1], alone).x_0
        torch.testing.assert_close(found, together[i : i + 1])


@pytest.mark.parametrize("settings", WAYS, ids=str)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("half", [False, True])
def test_works_where_gradients_are_off_and_under_autocast(settings, mode, half):
    guide, wave = Clip(2.0, Net(Linear()), **settings), Wavy()
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Unflatten(1, SHAPE))
    network.forward = lambda x, t, **_: wave(nn.Sequential.forward(network, x), t)
    network.null = {}
    denoise = NetworkDenoiser(network, Linear(), Eps())
    guided = guide(denoise)
    x_t, t, cond = batch(guide)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=half)
    with cast:
        outside = guided(x_t, t, cond).x_0.detach()
    with mode(), cast:
        x_t, t = x_t + 0, t + 0  # made in this mode
        values = Condition({k: v + 0 for k, v in cond.values.items()})
        denoise(x_t, t, values)  # autocast may remember the weights that it made here
        inside = guided(x_t, t, values)
        assert not inside.x_0.requires_grad
        assert inside.x_0.dtype == torch.float32
    torch.testing.assert_close(inside.x_0.clone(), outside)
    assert {(dtype, on) for dtype, _, on, _ in guide.scorer.seen} == {(torch.float32, False)}
    assert all(p.grad is None for p in (*guide.scorer.parameters(), *network.parameters()))


def test_a_guided_prediction_still_has_the_networks_gradient():
    for settings in WAYS:
        guide, denoise = Clip(2.0, Net(Linear()), **settings), denoiser()
        x_t, t, cond = batch(guide)
        (found,) = torch.autograd.grad(
            guide(denoise)(x_t, t, cond).x_0.sum(), denoise.network.weight
        )
        (wanted,) = torch.autograd.grad(denoise(x_t, t, cond).x_0.sum(), denoise.network.weight)
        torch.testing.assert_close(found, wanted)


def test_shifts_average_over_the_same_few_places():
    guide = Clip(1.0, Net(Linear()), shifts=8)
    x_t, t, cond = batch(guide)
    padded = torch.nn.functional.pad(x_t, (2, 2, 2, 2), mode="replicate")
    wanted = torch.zeros(B)
    for dy, dx in OFFSETS:
        wanted += guide.scorer(padded[..., 2 + dy : 6 + dy, 2 + dx : 6 + dx], t, cond) / 9
    torch.testing.assert_close(guide.score(x_t, t, cond), wanted)
    assert guide.scorer.seen[-1][1] == 9 * B
    assert OFFSETS[0] == (0, 0)
    for n in range(3, 10, 2):  # pairs cancel
        assert [sum(axis) for axis in zip(*OFFSETS[:n])] == [0, 0]
    one = guide.score(x_t, torch.tensor(5), cond)
    torch.testing.assert_close(one, guide.score(x_t, torch.full((B,), 5), cond))


def test_scale_zero_and_the_outside_of_an_interval_cost_nothing():
    guide = Clip(0.0, Net(Linear()))
    x_t, t, cond = batch(guide)
    assert torch.equal(guide(denoiser())(x_t, t, cond).x_0, denoiser()(x_t, t, cond).x_0)
    limited = Clip(3.0, guide.scorer, interval=(100, 900))
    for time in (1, 99, 901):
        limited(denoiser())(x_t, torch.tensor(time), cond)
    assert guide.scorer.seen == []
    found = limited(denoiser())(x_t, t, cond).x_0 == denoiser()(x_t, t, cond).x_0
    assert found.flatten(1).all(1).tolist() == [True, True, False, False, False, True]


def test_two_halves_are_guided_alike_and_may_be_guided_by_a_classifier_too():
    class Label(NoiseAware):
        def log_prob(self, x_t, t, cond):
            return -(x_t - cond.values["label"].reshape(-1, 1, 1, 1)).square().flatten(1).sum(1)

    guide = Clip(2.0, Directions(Linear()))
    x_t, t, cond = batch(guide)
    both = Condition({**cond.values, "label": torch.arange(B).float()}, {"label": 7.0})
    denoise = NetworkDenoiser(Wavy(), Linear(), Eps())
    denoise.conditions = frozenset({"label"})
    free = ClassifierFree(3.0)
    inside = free(guide(denoise))(x_t, t, both).x_0
    outside = guide(free(denoise))(x_t, t, both).x_0
    torch.testing.assert_close(inside, outside, rtol=1e-4, atol=1e-3)
    classifier = Classifier(0.5, Label(Linear(), DataSpec(None, SHAPE)))
    sum_of = classifier(guide(denoise))(x_t, t, both).x_0
    shifts = guide(denoise)(x_t, t, both).x_0 + classifier(denoise)(x_t, t, both).x_0
    torch.testing.assert_close(sum_of, shifts - denoise(x_t, t, both).x_0, rtol=1e-4, atol=1e-3)


def test_its_evaluations_can_be_counted():
    guide = Clip(1.0, Net(Linear()))
    sampler = Sampler(DDIM(), guidance=[guide, Clip(2.0, guide.scorer)])
    module = Diffusion(denoiser().network, Linear(), Eps(), Simple(), sampler)
    assert module.networks()["classifier_nfe"] == [guide.scorer]
    rows = []
    guide.scorer.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    x_t, t, cond = batch(guide)
    guide(denoiser())(x_t, t, cond)
    assert rows == [B]


def data(shape=SHAPE, captioned=True):
    return DataSpec("Fruit", shape, captioned=captioned)


def test_accepts_what_it_was_trained_for():
    Clip(1.0, Net(Linear())).check(Linear(), data())
    Clip(1.0, Net(), on="x_0").check(Cosine(7), data())


@pytest.mark.parametrize(
    ("process", "data", "message"),
    [
        (Linear(500), data(), r"guidance\.scorer: it was trained with T = 1000; expected"),
        (Cosine(), data(), r"guidance\.scorer: it was trained with α = "),
        (
            Linear(),
            data((3, 4, 4)),
            r"guidance\.scorer: .* of shape \(1, 4, 4\); expected \(3, 4, 4\), as in Fruit",
        ),
        (
            Linear(),
            data(captioned=False),
            r"guidance: Clip needs texts, Fruit has none; expected data with capt",
        ),
    ],
)
def test_refuses_what_it_was_not_trained_for(process, data, message):
    with pytest.raises(ValueError, match=message) as error:
        Clip(1.0, Net(Linear())).check(process, data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("scorer", "settings", "message"),
    [
        (Net(Linear()), {"scale": math.inf}, r"guidance\.scale: inf; expected a finite number"),
        (Net(Linear()), {"interval": (9, 3)}, r"guidance\.interval: \(9, 3\); expected first ≤"),
        (Net(), {}, r"guidance\.on: 'x_t'; expected 'x_0', as the scorer knows clean pictures"),
        (Net(Linear()), {"on": "x_1"}, r"guidance\.on: 'x_1'; expected 'x_t' or 'x_0'"),
        (
            Net(Linear(), clean=False),
            {"on": "x_0"},
            r"guidance\.on: 'x_0'; expected 'x_t', as the scorer knows noisy pictures only",
        ),
        (
            Net(Linear()),
            {"through": True},
            r"guidance\.through: True; expected False with on 'x_t'",
        ),
        (Net(Linear()), {"shifts": 9}, r"guidance\.shifts: 9; expected 0 … 8"),
        (Net(Linear()), {"shifts": -1}, r"guidance\.shifts: -1; expected 0 … 8"),
        (
            Directions(Linear(), (2,)),
            {"shifts": 1},
            r"guidance\.shifts: 1; expected 0 … 0 for samples of \(2,\)",
        ),
        (nn.Linear(1, 1), {}, r"guidance\.scorer: Linear; expected a TextScore module"),
    ],
)
def test_errors(scorer, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        Clip(**{"scale": 1.0, "scorer": scorer, **settings})
    assert "\n" not in str(error.value)


def test_a_missing_text_is_named():
    guide = Clip(2.0, Net(Linear()))
    x_t, t, _ = batch(guide)
    assert guide.read({"label": t}) == {}
    with pytest.raises(
        ValueError, match=r"Clip needs the condition 'text', there is none; expected"
    ):
        guide(denoiser())(x_t, t, Condition({"label": t}))


def test_a_prediction_of_another_kind_is_left_alone():
    """What denoises need not be a network: x̂_0 that does not depend on x_t is not moved."""
    guide = Clip(1.0, Directions(), on="x_0")
    x_t, _, cond = batch(guide)
    x_0 = torch.zeros(B, *SHAPE)

    def denoise(x_t, t, cond):
        return Prediction(x_t, x_0, torch.tensor(0.5), torch.tensor(0.5))

    found = guide(denoise)(x_t, torch.tensor(3), cond).x_0
    torch.testing.assert_close(found, 0.5 / 0.5 * cond.values["clip"])
