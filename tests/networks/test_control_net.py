"""ControlNet: what it adds, what it leaves alone, and what learns when."""

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from torch import nn

from diffusion.common.hashing import weights_digest
from diffusion.interop.diffusers.unet_weights import names
from diffusion.networks import (
    Augmentation,
    ControlNet,
    Hint,
    Inpainter,
    Locked,
    Stream,
    TextTransformer,
    UNet,
    Upsampler,
)
from diffusion.networks.conditioning.control_map import ControlMap
from diffusion.networks.control.control_net import Branch, LockedBranch
from diffusion.process import Cosine

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "attention": (4,), "blocks": 1}
SMALL |= {"groups": 4, "in_channels": 1}


def text():
    return {"text": Stream(TextTransformer(width=8, depth=1, heads=1, length=8))}


UNETS = {
    "ddpm with labels": lambda: UNet(**SMALL, num_classes=3, dropout=0.5),
    "adm": lambda: UNet(
        **SMALL, family="openai", scale_shift=True, resample="block", out_channels=2, head_width=4
    ),
    "text": lambda: UNet(**SMALL, streams=text()),
    "patches": lambda: UNet(**{**SMALL, "attention": ()}, patch=2),
    "upsampler": lambda: Upsampler(Augmentation(Cosine(20), 10, 4), **SMALL),
    "inpainter": lambda: Inpainter(**SMALL),
}


@torch.no_grad()
def randomised(net):
    """Gives every weight a value, so that none is 0."""
    for weight in net.parameters():
        weight.normal_(std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3)
    return net


def batch_of(net, n=2):
    made = {"edges": torch.rand(n, 1, 8, 8)}
    if net.num_classes:
        made["label"] = torch.tensor([0, 2])
    if "text" in (net.conditions or ()):
        made |= net.read({"text": ["a fox", ""]})
    if "low_res" in net.required:
        made |= {"low_res": torch.randn(n, 1, 4, 4), "level": torch.tensor([2, 9])}
    if "mask" in net.required:
        made |= {"known": torch.randn(n, 1, 8, 8), "mask": torch.ones(n, 1, 8, 8)}
    return torch.randn(n, 1, 8, 8), torch.tensor([3, 700]), made


def without(values, *keys):
    return {k: v for k, v in values.items() if k not in keys}


def controlled(base, **kwargs):
    hint = Hint(widths=(4, 4), start=kwargs.pop("start", "base"))
    return ControlNet(Locked(base), {"edges": hint}, **kwargs)


@pytest.mark.parametrize("kind", UNETS)
def test_before_training_it_is_the_base_bit_for_bit(kind):
    base = randomised(UNETS[kind]())
    net = controlled(copy.deepcopy(base).eval()).train()
    x_t, t, values = batch_of(net)
    plain = without(values, "edges")
    base.eval()
    trained = {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad}
    assert trained == {"branches"}
    net.branches.eval()  # whose dropout draws random numbers
    assert torch.equal(net(x_t, t, **values), base(x_t, t, **plain))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x_t, t, **values), base(x_t, t, **plain))
    randomised(net.branches)
    given = net(x_t, t, **values)
    assert not torch.allclose(given, base(x_t, t, **plain), atol=1e-3)
    zero, one = torch.zeros(2, 2), torch.ones(2, 2)
    assert torch.equal(net(x_t, t, **values, edges_strength=zero), base(x_t, t, **plain))
    assert torch.equal(net(x_t, t, **plain, edges_strength=zero), base(x_t, t, **plain))
    assert torch.equal(net(x_t, t, **values, edges_strength=one), given)


@pytest.mark.parametrize("unlocked", [None, "decoder"])
def test_what_learns_in_the_first_three_backwards_and_that_the_base_stays(unlocked):
    base = randomised(UNETS["text"]())
    before = weights_digest(base.state_dict())
    net = ControlNet(Locked(base), {"edges": Hint(widths=(4, 4))}, unlocked).train()
    optimizer = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), 0.1)
    seen = []
    for _ in range(3):
        x_t, t, values = batch_of(net)
        optimizer.zero_grad()
        net(x_t, t, **values).square().mean().backward()
        grown = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
        seen.append({n for n in grown if not n.startswith("decoder")})
        optimizer.step()
        assert all(p.grad is None for p in net.base.parameters())
        assert any(n.startswith("decoder") for n in grown) == (unlocked is not None)
    at = "branches.edges"
    first, second, third = seen
    assert first == {n for n, _ in net.named_parameters() if n.startswith(f"{at}.zeros")}
    assert {f"{at}.hint.out.weight", f"{at}.encoder.down.0.block.conv_in.weight"} <= second
    assert not any(n.startswith(f"{at}.hint.layers") for n in second)
    assert {n for n, _ in net.named_parameters() if n.startswith(f"{at}.hint")} <= third
    assert weights_digest(net.network.state_dict()) == before


@pytest.mark.parametrize("kind", UNETS)
def test_all_that_is_trained_has_a_gradient_which_several_processes_wait_for(kind):
    net = ControlNet(Locked(UNETS[kind]()), {"edges": Hint(widths=(4, 4))}, "decoder").train()
    x_t, t, values = batch_of(net)
    net(x_t, t, **values).sum().backward()
    assert not [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]


def test_texts_are_encoded_once_however_many_controls_there_are():
    net = ControlNet(Locked(UNETS["text"]()), {k: Hint(widths=(4, 4)) for k in ("a", "b")})
    calls = []
    net.network.streams.encoders["text"].register_forward_hook(lambda *_: calls.append(1))
    x_t, t, values = batch_of(net)
    net(x_t, t, **without(values, "edges"), a=values["edges"], b=values["edges"])
    assert len(calls) == 1


def test_no_gradient_is_kept_in_the_base_but_for_its_decoder():
    net = controlled(randomised(UNETS["text"]()))
    x_t, t, values = batch_of(net)
    texts = net.network.encodings(x_t, values)
    emb, sources = net.network.embed(texts, t, None, values)
    h, skips = net.network.encode(x_t, emb, sources)
    assert not any(x.requires_grad for x in (emb, h, *skips))
    x_t.requires_grad_()  # a gradient through all of it, if one asks for it
    (net(x_t, t, **values).sum() - net.network(x_t, t, **without(values, "edges")).sum()).backward()
    assert x_t.grad is not None
    assert not x_t.grad.any()


def test_checkpointing_gives_the_same_gradients():
    base = randomised(UNETS["text"]())
    grads = []
    for again in (False, True):
        torch.manual_seed(1)
        net = ControlNet(Locked(copy.deepcopy(base)), {"edges": Hint(widths=(4, 4))}, None, again)
        randomised(net.branches)
        torch.manual_seed(2)
        x_t, t, values = batch_of(net)
        net.train()(x_t, t, **values).square().sum().backward()
        grads.append({n: p.grad for n, p in net.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][n], grads[1][n]) for n in grads[0])


def test_two_controls_at_half_strength_of_the_same_control_are_one():
    base = randomised(UNETS["text"]())
    branch = randomised(Branch(base, Hint(widths=(4, 4))))
    mark = Locked(base).mark
    one = ControlNet(Locked(base), {"edges": LockedBranch(branch, mark)})
    two = ControlNet(Locked(base), {k: LockedBranch(branch, mark) for k in ("edges", "also")})
    x_t, t, values = batch_of(one)
    half = torch.tensor([[0.5, 1.0]] * 2)
    both = {"also": values["edges"], "edges_strength": half, "also_strength": half}
    assert torch.allclose(one(x_t, t, **values), two(x_t, t, **values, **both), atol=1e-6)
    assert not any(p.requires_grad for p in two.parameters())
    assert all(v.numel() == 0 for v in two.state_dict().values())  # digests only
    with pytest.raises(ValueError, match=r"network.controls.edges: trained with base_x; expected"):
        ControlNet(Locked(base), {"edges": LockedBranch(branch, "base_x")})


def test_a_copy_may_start_from_noise_of_the_same_size():
    base = randomised(UNETS["text"]())
    noise = controlled(base, start="noise").branches["edges"].encoder
    same = controlled(base).branches["edges"].encoder
    for (name, a), b in zip(noise.named_parameters(), same.parameters()):
        assert torch.equal(a.flatten().sort()[0], b.flatten().sort()[0])
        assert a.numel() < 9 or not torch.equal(a, b), name
    assert torch.equal(same.conv_in.weight, base.conv_in.weight)


def test_without_widths_the_hint_is_one_zero_convolution():
    base = randomised(UNETS["patches"]())
    net = ControlNet(Locked(base), {"edges": Hint(widths=())})
    hint = net.branches["edges"].hint
    assert sorted(hint.state_dict()) == ["out.bias", "out.weight"]
    nn.init.normal_(hint.out.weight)
    control = torch.rand(2, 1, 8, 8)
    strided = hint.out.weight[:, :, 1:2, 1:2].view(8, 1, 2, 2)  # of the middle position alone
    hint.out.weight.data[:] = F.pad(hint.out.weight[:, :, 1:2, 1:2], (1, 1, 1, 1))
    assert torch.allclose(hint(control), F.conv2d(control, strided, stride=2), atol=1e-6)


WRONG = {
    "missing": ({}, r"edges: missing; expected a control for each sample, \(2, 1, 8, 8\)"),
    "size": (
        {"edges": torch.rand(2, 1, 4, 4)},
        r"edges: \(2, 1, 4, 4\); expected",
    ),
    "channels": ({"edges": torch.rand(2, 3, 8, 8)}, r"edges: \(2, 3, 8, 8\); expected"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_control_that_does_not_fit_is_refused(wrong):
    net = controlled(UNet(**SMALL))
    given, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        net(torch.randn(2, 1, 8, 8), torch.tensor([1, 2]), **given)


def test_what_cannot_be_built_is_refused():
    base = Locked(UNet(**SMALL))
    with pytest.raises(ValueError, match=r"network.base: Linear; expected a UNet"):
        ControlNet(Locked(nn.Linear(2, 2)), {"edges": Hint()})
    with pytest.raises(ValueError, match=r"network.controls: {}; expected at least one"):
        ControlNet(base, {})
    with pytest.raises(ValueError, match=r"network.controls.widths: .*; expected numbers ≥ 1"):
        Hint(widths=(4, 0))
    with pytest.raises(ValueError, match=r"widths: \[4\]; expected 2 or more, or none"):
        ControlNet(Locked(UNETS["patches"]()), {"edges": Hint(widths=(4,))})
    with pytest.raises(ValueError, match=r"conditions 'edges' and 'edges_thin'"):
        ControlNet(base, {"edges": Hint(), "edges_thin": Hint()})


@pytest.fixture
def published():
    """diffusers' ControlNetModel, and ours with its weights; both read a patch of 2 x 2 as 4."""
    with torch.no_grad():
        theirs = ControlNetModel(
            in_channels=4,
            conditioning_channels=3,
            flip_sin_to_cos=True,
            freq_shift=0,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            mid_block_type="UNetMidBlock2D",
            block_out_channels=(16, 32),
            layers_per_block=2,
            norm_num_groups=4,
            norm_eps=1e-5,
            downsample_padding=1,
            cross_attention_dim=None,
            conditioning_embedding_out_channels=(4, 8),
        ).eval()
        randomised(theirs)
        unet = UNet(
            8, in_channels=1, channels=16, multipliers=(1, 2), attention=(), blocks=2, groups=4,
            family="openai", patch=2,
        )  # fmt: skip
        ours = Branch(unet, Hint(channels=3, widths=(4, 8)))
        state = theirs.state_dict()
        for name, parts in names(ours.encoder).items():
            if parts[0] in state:
                value = torch.cat([state[part] for part in parts])
                ours.encoder.get_parameter(name).copy_(value)
        hints = [*ours.hint.layers, ours.hint.out]
        embedding = theirs.controlnet_cond_embedding
        zeros = [*theirs.controlnet_down_blocks, theirs.controlnet_mid_block]
        stack = [embedding.conv_in, *embedding.blocks, embedding.conv_out]
        for mine, its in zip([*hints, *ours.zeros], [*stack, *zeros], strict=True):
            mine.load_state_dict(its.state_dict())
    return theirs, ours.eval()


@pytest.mark.parametrize("guess", [False, True])
def test_its_residuals_are_those_of_diffusers(published, guess):
    theirs, ours = published
    x_t, t, control = torch.randn(2, 1, 8, 8), torch.tensor([4, 801]), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        x = F.pixel_unshuffle(x_t, 2)
        down, middle = theirs(x, t - 1, None, control, 0.7, guess_mode=guess).values()
        r = 0.1 ** (1 / 12) if guess else 1.0  # its 10^−1 … 10^0; the authors' 0.825 is 0.1^(1/12)
        strength = torch.tensor([[0.7, r]] * 2)
        mine = scaled_of(ours, control, x_t, t, strength)
    assert abs(0.1 ** (1 / 12) - 0.825) < 1e-3
    assert len(down) == 6
    for a, b in zip(mine, [*down, middle], strict=True):
        assert b.abs().max() > 0.01
        assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()) + 1e-6)


def scaled_of(branch, control, x_t, t, strength):
    from diffusion.networks.control.control_net import scaled_residuals

    return scaled_residuals(branch(control, x_t, {}, t, None, {}), strength)


def test_a_line_stays_a_line_where_a_stage_is_smaller():
    """A drawing of zeros and ones; of grey values the means are taken."""
    one = ControlMap("lines", 1)
    control = torch.zeros(2, 1, 16, 16)
    control[0, 0, 5] = 1  # a line across
    control[1, 0].fill_diagonal_(1)
    small = one.resized({"lines": control}, (8, 8))["lines"]
    across = torch.zeros(8, 8)
    across[2] = 1
    assert torch.equal(small[:, 0], torch.stack([across, torch.eye(8)]))
    assert torch.equal(one.resized({"lines": small}, (8, 8))["lines"], small)
    grey = control / 2
    means = one.resized({"lines": grey}, (8, 8))["lines"]
    assert torch.equal(means, F.avg_pool2d(grey, 2))
