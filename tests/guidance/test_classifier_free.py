import pytest
import torch
from diffusers.guiders.guider_utils import rescale_noise_cfg
from exact import Mixture, Wavy

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser, Prediction
from diffusion.guidance import ClassifierFree
from diffusion.parameterization import X0, Eps, V
from diffusion.process import Cosine, Linear, RectifiedFlow
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM

B = 6


def batch():
    label = torch.arange(B) % 3 + 1
    return (
        torch.randn(B, 1, 4, 4, dtype=torch.float64),
        torch.tensor([1, 2, 100, 500, 900, 1000]),
        Condition({"label": label}, {"label": 0}),
    )


def denoiser(parameterization=None, channels=1):
    return NetworkDenoiser(Wavy(channels).double(), Linear(), parameterization or Eps())


def test_scale_one_is_the_conditional_exactly():
    x_t, t, cond = batch()
    d = denoiser()
    assert torch.equal(ClassifierFree(1.0)(d)(x_t, t, cond).x_0, d(x_t, t, cond).x_0)
    assert [len(t) for t in d.network.seen] == [B, B]


def test_scale_zero_is_the_null_exactly():
    x_t, t, cond = batch()
    d = denoiser()
    null = d(x_t, t, Condition({"label": torch.zeros(B, dtype=torch.long)}))
    assert torch.equal(ClassifierFree(0.0)(d)(x_t, t, cond).x_0, null.x_0)
    assert [len(t) for t in d.network.seen] == [B, B]  # at the price of one pass
    assert (null.x_0 - d(x_t, t, cond).x_0).abs().max() > 0.01


@pytest.mark.parametrize("w", [-0.5, 0.7, 2.0, 6.5])
@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
def test_papers_rule_in_noise_v_and_data(parameterization, w):
    """(1 + w) · conditional − w · null, whichever of the three the network puts out (eq. 6)."""
    x_t, t, cond = batch()
    d = denoiser(parameterization)
    guided = ClassifierFree(1 + w)(d)(x_t, t, cond)
    conditional, null = d(x_t, t, cond), d(x_t, t, cond.drop())

    def v(pred):
        return pred.alpha * pred.eps - pred.sigma * pred.x_0

    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    for of in (lambda p: p.eps, lambda p: p.x_0, v):
        expected = (1 + w) * of(conditional) - w * of(null)
        torch.testing.assert_close(of(guided), expected, **tolerance)
    alpha, sigma = (table[t].reshape(-1, 1, 1, 1) for table in (Linear().alpha, Linear().sigma))
    torch.testing.assert_close(alpha * guided.x_0 + sigma * guided.eps, x_t)
    assert guided.x_t is x_t


def test_one_call_of_both_halves():
    x_t, t, cond = batch()
    d = denoiser()
    guided = ClassifierFree(3.0)(d)
    guided(x_t, t, cond)
    guided(x_t, torch.tensor(7), cond)
    assert [len(t) for t in d.network.seen] == [2 * B, 2 * B]
    assert torch.equal(d.network.seen[0], torch.cat([t, t]))


@pytest.mark.parametrize("interval", [None, (100, 900)])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_single_time_is_a_batch_of_one(interval, rescale):
    x_t, _, cond = batch()
    guided = ClassifierFree(3.0, interval=interval, rescale=rescale)(denoiser(channels=2))
    for t in (1, 99, 100, 500, 900, 901, 1000):
        one, every = guided(x_t, torch.tensor(t), cond), guided(x_t, torch.full((B,), t), cond)
        torch.testing.assert_close(one.x_0, every.x_0)
        torch.testing.assert_close(one.eps, every.eps)
        torch.testing.assert_close(one.v, every.v)


def test_interval_ends_are_inside_and_outside_costs_one_pass():
    x_t, t, cond = batch()
    d = denoiser()
    limited, plain = ClassifierFree(3.0, interval=(100, 900))(d), ClassifierFree(3.0)(d)
    mixed = limited(x_t, t, cond).x_0
    inside = torch.tensor([False, False, True, True, True, False])
    torch.testing.assert_close(mixed[inside], plain(x_t, t, cond).x_0[inside])
    torch.testing.assert_close(mixed[~inside], d(x_t, t, cond).x_0[~inside])
    for time, passes in [(99, 1), (100, 2), (900, 2), (901, 1)]:
        d.network.seen.clear()
        out = limited(x_t, torch.tensor(time), cond)
        assert [len(t) for t in d.network.seen] == [passes * B]
        same = plain if passes == 2 else d
        assert torch.equal(out.x_0, same(x_t, torch.tensor(time), cond).x_0)


def test_learned_variance_is_the_conditional_one():
    x_t, t, cond = batch()
    d = denoiser(channels=2)
    for time in (t, torch.tensor(500)):
        guided = ClassifierFree(4.0)(d)(x_t, time, cond)
        assert torch.equal(guided.v, d(x_t, time, cond).v)
        assert (guided.v - d(x_t, time, cond.drop()).v).abs().max() > 0.01


@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
def test_rescale_is_diffusers(rescale):
    x_t, t, cond = batch()
    d = denoiser(X0())
    conditional = d(x_t, t, cond).x_0
    guided = ClassifierFree(5.0)(d)(x_t, t, cond).x_0
    rescaled = ClassifierFree(5.0, rescale=rescale)(d)(x_t, t, cond).x_0
    torch.testing.assert_close(rescaled, rescale_noise_cfg(guided, conditional, rescale))
    axes = (1, 2, 3)
    assert (guided.std(axes) / conditional.std(axes) - 1).abs().max() > 0.1
    if rescale == 1:
        torch.testing.assert_close(rescaled.std(axes), conditional.std(axes))


def test_drop_names_what_null_replaces():
    seen = []

    def denoise(x_t, t, cond):
        seen.append(cond.values)
        return Prediction(x_t, x_t, torch.tensor(0.6), torch.tensor(0.8))

    values = {"label": torch.tensor([1, 2]), "text": torch.ones(2, 3), "low_res": torch.rand(2, 1)}
    cond = Condition(values, {"label": 0, "text": 0.0})
    x_t, t = torch.randn(2, 1), torch.tensor(5)
    for drop, label, text in [(None, 0, 0), (["label"], 0, 1), (["text"], 1, 0)]:
        ClassifierFree(2.0, drop=drop)(denoise)(x_t, t, cond)
        assert seen[-1]["label"].tolist() == [1, 2, *([0, 0] if label == 0 else [1, 2])]
        assert torch.equal(
            seen[-1]["text"], torch.tensor([1, 1, text, text]).float()[:, None].expand(4, 3)
        )
        assert torch.equal(seen[-1]["low_res"], values["low_res"].repeat(2, 1))


@pytest.mark.parametrize("it", [Linear(), Cosine(), RectifiedFlow()])
@pytest.mark.parametrize("step", [DDIM(), DDPM()], ids=lambda s: type(s).__name__)
def test_moves_samples_to_the_class(it, step):
    """Two overlapping classes with exact conditional and unconditional denoisers."""
    means = torch.tensor([[-0.5, 0.4], [-0.5, -0.4], [0.5, 0.4], [0.5, -0.4]])
    data = Mixture(it, means, 0.5, labels=torch.tensor([0, 0, 1, 1]))
    n = 1500
    cond = Condition({"label": torch.ones(n, dtype=torch.long)}, {"label": -1})
    x_T = torch.randn(n, 2)

    def share(scale):
        x_0 = Sampler(step, 50, [ClassifierFree(scale)])(data, it, x_T, cond)
        return (x_0[:, 0] > 0).double().mean().item()

    shares = [share(scale) for scale in (0.0, 1.0, 3.0, 6.0)]
    assert abs(shares[0] - 0.5) < 0.05  # as in the data without labels
    assert abs(shares[1] - 0.841) < 0.05  # as in the class: Φ(0.5 / 0.5)
    assert shares[2] > 0.97
    assert shares[3] > 0.99


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": float("inf")}, r"guidance\.scale: inf; expected a finite number"),
        ({"scale": float("nan")}, r"guidance\.scale: nan; expected a finite number"),
        ({"scale": 2.0, "rescale": 1.5}, r"guidance\.rescale: 1\.5; expected 0 … 1"),
        ({"scale": 2.0, "rescale": -0.1}, r"guidance\.rescale: -0\.1; expected 0 … 1"),
        (
            {"scale": 2.0, "interval": (9, 3)},
            r"guidance\.interval: \(9, 3\); expected first ≤ last",
        ),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassifierFree(**settings)
