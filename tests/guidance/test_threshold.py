import pytest
import torch
from diffusers import DDPMScheduler
from exact import Wavy

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser, Prediction
from diffusion.guidance import ClassifierFree, Dynamic, Static
from diffusion.parameterization import X0
from diffusion.process import Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM

B = 6


def estimate(x_0):
    """A denoiser that always gives the same x̂_0, at α = 0.6 and σ = 0.8."""

    def denoise(x_t, t, cond):
        return Prediction(x_t, x_0, torch.tensor(0.6), torch.tensor(0.8), v=0 * x_0 + 0.3)

    return denoise


def apply(guidance, x_0):
    return guidance(estimate(x_0))(torch.ones_like(x_0), torch.tensor(5), Condition())


@pytest.mark.parametrize(
    "guidance", [Static(), Dynamic(), Dynamic(0.5), Dynamic(0.0), Dynamic(1.0)]
)
def test_range_and_identity(guidance):
    wild = 3 * torch.randn(B, 3, 8, 8)
    pred = apply(guidance, wild)
    assert pred.x_0.abs().max() <= 1
    torch.testing.assert_close(0.6 * pred.x_0 + 0.8 * pred.eps, torch.ones_like(wild))
    assert (pred.v == 0.3).all()
    tame = wild / wild.abs().max()
    assert torch.equal(apply(guidance, tame).x_0, tame)


def test_static_clips():
    x_0 = torch.tensor([[-3.0, -1.0, -0.5, 0.0, 0.2, 1.0, 7.0]])
    assert apply(Static(), x_0).x_0.tolist() == [[-1.0, -1.0, -0.5, 0.0, x_0[0, 4], 1.0, 1.0]]


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_is_imagens(percentile):
    """Each image by its own percentile, as torch.quantile and diffusers without its cap say."""
    x_0 = torch.randn(B, 3, 8, 8) * torch.tensor([0.1, 0.5, 1, 2, 4, 8]).reshape(B, 1, 1, 1)
    out = apply(Dynamic(percentile), x_0).x_0
    for image, result in zip(x_0, out):
        s = max(1.0, torch.quantile(image.abs().flatten(), percentile).item())
        torch.testing.assert_close(result, image.clamp(-s, s) / s)
    scheduler = DDPMScheduler(dynamic_thresholding_ratio=percentile, sample_max_value=1e6)
    torch.testing.assert_close(out, scheduler._threshold_sample(x_0))


def test_dynamic_does_not_depend_on_the_batch():
    """More numbers at once than torch.quantile takes, and one image after the other."""
    x_0 = 2 * torch.randn(18, 1, 1000, 1000)
    together = apply(Dynamic(), x_0).x_0
    for i in (0, 15, 16, 17):
        assert torch.equal(together[i : i + 1], apply(Dynamic(), x_0[i : i + 1]).x_0)


@pytest.mark.parametrize("percentile", [-0.1, 1.1, 99.5])
def test_percentile_out_of_range(percentile):
    with pytest.raises(ValueError, match=rf"guidance\.percentile: {percentile}; expected 0 … 1"):
        Dynamic(percentile)


def test_order_of_composition():
    """[CFG, threshold] thresholds what CFG made; [threshold, CFG] leaves the range again."""
    x_t, t = torch.randn(B, 1, 4, 4), torch.tensor(900)
    cond = Condition({"label": 3 * torch.ones(B, dtype=torch.long)}, {"label": 0})
    denoiser = NetworkDenoiser(Wavy(size=2.0), Linear(), X0())
    conditional, null = (denoiser(x_t, t, c).x_0 for c in (cond, cond.drop()))

    for threshold in (Static(), Dynamic(0.9)):
        after = threshold(ClassifierFree(4.0)(denoiser))(x_t, t, cond).x_0
        expected = apply(threshold, null + 4 * (conditional - null)).x_0
        torch.testing.assert_close(after, expected)
        before = ClassifierFree(4.0)(threshold(denoiser))(x_t, t, cond).x_0
        limits = (apply(threshold, x).x_0 for x in (conditional, null))
        c, n = limits
        torch.testing.assert_close(before, n + 4 * (c - n))
        assert before.abs().max() > 1.5

    # The list of a sampler is inner to outer: one step to 0 ends on x̂_0 itself.
    x_T = torch.randn(B, 1, 4, 4)
    for guidance, inside in [
        ([ClassifierFree(4.0), Static()], True),
        ([Static(), ClassifierFree(4.0)], False),
    ]:
        x_0 = Sampler(DDIM(), 1, guidance)(denoiser, Linear(), x_T, cond)
        assert (x_0.abs().max() <= 1) == inside
