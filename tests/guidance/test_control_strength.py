"""How strongly a control is obeyed, when, and in which pass."""

import pytest
import torch

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import ClassifierFree, ControlStrength, Inpaint
from diffusion.networks import ControlNet, Hint, Locked, UNet
from diffusion.parameterization import V
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver, Heun, UniPC

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "attention": (), "blocks": 1}
B = 3


@pytest.fixture
def both():
    """A controlled denoiser, none of whose weights is 0, and that of its base."""
    base = UNet(**SMALL, in_channels=1, groups=4, num_classes=4)
    net = ControlNet(Locked(base), {"edges": Hint(widths=(4,))})
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3)
    return tuple(NetworkDenoiser(x.double().eval(), Cosine(20), V()) for x in (net, base))


@pytest.fixture
def given():
    values = {"edges": torch.rand(B, 1, 8, 8), "label": torch.tensor([0, 1, 3])}
    x_t = torch.randn(B, 1, 8, 8, dtype=torch.float64)
    return x_t, torch.tensor(7), Condition({k: v for k, v in values.items()}, {"label": 4})


def told(denoiser, x_t, t, cond, s, r=1.0):
    """x̂_0 with (s, r) said to the network itself."""
    values = {**cond.values, "edges_strength": x_t.new_tensor([[s, r]] * len(x_t))}
    return denoiser(x_t, t, Condition(values, cond.null)).x_0


@torch.no_grad()
def test_strength_one_changes_nothing_and_strength_zero_is_the_base(both, given):
    net, base = both
    assert torch.equal(ControlStrength("edges")(net)(*given).x_0, net(*given).x_0)
    assert torch.equal(ControlStrength("edges", 0.0)(net)(*given).x_0, base(*given).x_0)
    half = ControlStrength("edges", 0.5)(net)(*given).x_0
    assert torch.equal(half, told(net, *given, 0.5))
    assert not torch.allclose(half, net(*given).x_0)


@torch.no_grad()
def test_outside_its_interval_the_branch_is_not_looked_at(both, given):
    net, base = both
    x_t, _, cond = given
    guided = ControlStrength("edges", 0.7, (5, 10))(net)
    calls, outside, inside = [], torch.tensor(11), torch.tensor(5)
    net.network.branches["edges"].register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(guided(x_t, outside, cond).x_0, base(x_t, outside, cond).x_0)
    assert not calls
    assert torch.equal(guided(x_t, inside, cond).x_0, told(net, x_t, inside, cond, 0.7))
    each = torch.tensor([4, 5, 11])  # a time for each sample
    found, plain = guided(x_t, each, cond).x_0, base(x_t, each, cond).x_0
    assert torch.equal(found[::2], plain[::2])
    assert torch.equal(found[1], told(net, x_t, each, cond, 0.7)[1])


@torch.no_grad()
@pytest.mark.parametrize("drop", [None, ["label"]])
def test_guess_mode_controls_the_conditional_pass_alone(both, given, drop):
    """x̂_0 = x̂_0(∅, no control) + w (x̂_0(c, control with r = 0.825) − x̂_0(∅, no control))."""
    net, base = both
    x_t, t, cond = given
    w, guess = 3.0, ControlStrength("edges", 0.9, guess=True)
    found = guess(ClassifierFree(w, drop=drop)(net))(x_t, t, cond).x_0
    null, with_it = base(x_t, t, cond.drop()).x_0, told(net, x_t, t, cond, 0.9, 0.825)
    torch.testing.assert_close(found, null + w * (with_it - null))
    plain = ControlStrength("edges", 0.9)(ClassifierFree(w, drop=drop)(net))(x_t, t, cond).x_0
    null, with_it = told(net, x_t, t, cond.drop(), 0.9), told(net, x_t, t, cond, 0.9)
    torch.testing.assert_close(plain, null + w * (with_it - null))  # in both


@pytest.mark.parametrize("step", [DDIM(), DDPM(), Heun(), DPMSolver(), UniPC()])
def test_all_solvers_draw_the_bases_samples_at_strength_zero(both, given, step):
    net, base = both
    x_T, _, cond = given
    free = ClassifierFree(2.0)

    def draw(denoiser, *guidance):
        torch.manual_seed(5)
        return Sampler(step, 4, guidance)(denoiser, Cosine(20), x_T, cond)

    plain = draw(base, free)
    assert torch.equal(draw(net, free, ControlStrength("edges", 0.0)), plain)
    assert not torch.allclose(draw(net, free, ControlStrength("edges")), plain)
    assert torch.equal(draw(net, free, ControlStrength("edges")), draw(net, free))


@torch.no_grad()
def test_inpainting_keeps_what_is_known_and_the_control_decides_the_rest(both, given):
    net, base = both
    x_T, _, cond = given
    known, mask = torch.rand_like(x_T) * 2 - 1, torch.zeros_like(x_T)
    mask[..., :4] = 1
    cond = Condition({**cond.values, "known": known, "mask": mask}, cond.null)

    def draw(denoiser, *guidance):
        return Sampler(DDIM(), 4, (*guidance, Inpaint()))(denoiser, Cosine(20), x_T, cond)

    found, plain = draw(net, ControlStrength("edges", 0.5)), draw(base)
    assert torch.equal(found[..., :4], known[..., :4])
    assert not torch.allclose(found[..., 4:], plain[..., 4:])
    assert torch.equal(draw(net, ControlStrength("edges", 0.0)), plain)


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"guidance.scale: inf; expected a finite number"):
        ControlStrength("edges", float("inf"))
    with pytest.raises(ValueError, match=r"guidance.interval: \(3, 2\); expected first ≤ last"):
        ControlStrength("edges", interval=(3, 2))
