"""Imagen's options of the UNet (its appendix B), against the same weights put together by hand."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from test_token_attention import Letters

from diffusion.networks import Stream, UNet, Upsampler
from diffusion.networks.unet.attention import CrossAttention, SelfAttention

SMALL = {"channels": 8, "multipliers": (1, 2), "attention": (), "blocks": 1}
EFFICIENT = {**SMALL, "blocks": [1, 2], "resample_first": True, "skip_scale": 0.5**0.5}


def noisy(network):
    """A network with no weight left at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double().eval()


def unet(**changes):
    torch.manual_seed(0)
    return noisy(UNet(16, 1, **{**SMALL, **changes}))


@pytest.fixture
def x():
    torch.manual_seed(2)
    return torch.randn(2, 1, 16, 16, dtype=torch.float64), torch.tensor([3, 700])


def test_blocks_of_each_level_are_those_of_all_where_they_are_equal(x):
    one, each = unet(blocks=2), unet(blocks=[2, 2])
    assert torch.equal(one(*x), each(*x))
    assert one.state_dict().keys() == each.state_dict().keys()


def test_a_level_has_its_own_number_of_blocks():
    """Counted by the formula: 9 (a + b) b weights of convolutions and a b of the shortcut."""
    few, many = unet(blocks=[1, 1]), unet(blocks=[1, 3])
    count = [sum(p.numel() for p in n.parameters()) for n in (few, many)]
    b, emb = 16, 32

    def block(a):  # norms, convolutions, what the time adds, and the shortcut
        return 2 * (a + b) + 9 * (a + b) * b + 2 * b + emb * b + b + (a * b + b if a != b else 0)

    # Two more on the way down, and two on the way up, which read a map from the way down each.
    assert count[1] - count[0] == 2 * block(b) + 2 * block(2 * b)


def test_resampling_first_is_the_same_layers_in_another_order(x):
    network = unet(**EFFICIENT)
    x_t, t = x
    emb, scale = F.silu(network.embedding(t)), 0.5**0.5
    down, up = network.down, network.up

    def join(h, skip):
        return torch.cat([h, scale * skip], dim=1)

    h = network.conv_in(x_t)
    a = down[0](h, emb)  # of half the resolution, where the first block works
    b = down[1](a, emb)
    c = down[2](b, emb)
    d = down[3](c, emb)
    e = down[4](d, emb)
    assert [y.shape[2] for y in (h, a, b, c, d, e)] == [16, 8, 8, 4, 4, 4]
    assert network.skips == [y.shape[1] for y in (a, b, c, d, e)] == [8, 8, 8, 16, 16]
    h = network.middle[1](network.middle[0](e, emb), emb)
    for layer, skip in zip(up[:2], (e, d)):
        assert layer.upsample is None
        h = layer(join(h, skip), emb)
    h = up[3](join(up[2](join(h, c), emb), b), emb)
    assert h.shape[2] == 8
    h = up[4](join(h, a), emb)
    assert len(up) == 5
    torch.testing.assert_close(network(x_t, t), network.conv_out(F.silu(network.norm_out(h))))


def test_sizes_count_from_the_first_level():
    network = unet(**{**EFFICIENT, "attention": (4,)})
    assert (network.factor, network.attend) == (4, [False, True])
    with pytest.raises(ValueError, match=r"attention: \[16\]; expected resolutions among \[8, 4\]"):
        unet(resample_first=True, attention=(16,))
    with pytest.raises(ValueError, match=r"image_size: 18; expected a multiple of 2·2.* = 4"):
        UNet(18, 1, **{**SMALL, "resample_first": True})


def test_a_scale_of_skips_is_one_of_the_weights_that_read_them(x):
    """A norm takes it back, as none of its groups has channels of both, but for its ε."""
    scaled, plain = unet(skip_scale=0.5), unet()
    plain.load_state_dict(scaled.state_dict())
    x = (30 * x[0], x[1])  # so that ε does not count
    assert (scaled(*x) - plain(*x)).abs().max() > 1e-2
    with torch.no_grad():
        for layer, skip in zip(plain.up, reversed(plain.skips)):
            norm = layer.block.norm_in
            assert norm.num_channels == 4 * norm.num_groups
            assert skip % 4 == 0
            layer.block.shortcut.weight[:, -skip:] *= 0.5
    torch.testing.assert_close(scaled(*x), plain(*x), rtol=1e-4, atol=1e-4)


def test_without_self_attention_only_tokens_are_read():
    """What it adds is what cross-attention adds to self-attention."""
    torch.manual_seed(0)
    streams = {"text": Stream(Letters(), route="cross")}
    network = unet(attention=(8,), streams=streams, self_attention=False, heads=2)
    layers = [m for m in network.modules() if isinstance(m, CrossAttention)]
    assert len(layers) == 1 + 2 + 1  # down, up, and the middle
    assert not [m for m in network.modules() if isinstance(m, SelfAttention)]
    both, alone = (
        SelfAttention(16, style)
        for style in (
            unet(streams=streams, heads=2).style,
            unet(heads=2).style,
        )
    )
    cross, both, alone = layers[0], noisy(both), alone.double()
    with torch.no_grad():
        both.out.bias.zero_()
        cross.out.bias.zero_()
        both.qkv.weight[:16], both.qkv.bias[:16] = cross.query.weight, cross.query.bias
    for name in ("norm", "tokens", "out"):
        both.get_submodule(name).load_state_dict(cross.get_submodule(name).state_dict())
    alone.load_state_dict(both.state_dict(), strict=False)
    h = torch.randn(3, 16, 4, 4, dtype=torch.float64)
    emb = Letters().read(["ab", "", "cde"])
    sources, _ = network.streams({"text": Letters()({k: v.double() if v.is_floating_point() else v
                                                     for k, v in emb.items()})})  # fmt: skip
    torch.testing.assert_close(cross(h, sources) - h, both(h, sources) - alone(h))
    assert (cross(h, sources) - h).abs().max() > 1e-3


def test_without_anything_to_read_there_is_no_attention():
    network = unet(attention=(8,), self_attention=False)
    assert not any(isinstance(m, SelfAttention | CrossAttention) for m in network.modules())
    with pytest.raises(ValueError, match=r"streams\.text: route join; expected route cross"):
        unet(streams={"text": Stream(Letters(), route="join")}, self_attention=False)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [([1], "blocks: .1.; expected a number for each of 2 levels"), ([1, 0], "blocks: 0; expected")],
)
def test_blocks_that_do_not_fit(blocks, message):
    with pytest.raises(ValueError, match=rf"network\.{message}"):
        unet(blocks=blocks)


def test_whole_pictures_are_seen_as_crops_were():
    """Far from a crop's edges, and but for the norms, which average over all that is shown."""
    torch.manual_seed(0)
    streams = {"text": Stream(Letters(), route="cross")}
    settings = {**SMALL, "multipliers": (1,), "streams": streams, "self_attention": False}
    network = noisy(Upsampler(image_size=96, in_channels=1, resample_first=True, **settings))
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    x_t, t = torch.randn(1, 1, 96, 96, dtype=torch.float64), torch.tensor([300])
    low = torch.randn(1, 1, 48, 48, dtype=torch.float64)
    text = Letters().read(["a cat"])
    text = {"text" + k: v.double() if v.is_floating_point() else v for k, v in text.items()}
    whole = network(x_t, t, low_res=low, **text)
    top, left, side, far = 10, 22, 64, 26
    crop = x_t[..., top : top + side, left : left + side]
    small = low[..., top // 2 : (top + side) // 2, left // 2 : (left + side) // 2]
    part = network(crop, t, low_res=small, **text)
    there = whole[..., top + far : top + side - far, left + far : left + side - far]
    torch.testing.assert_close(part[..., far:-far, far:-far], there)
    assert (part[..., :4, :4] - whole[..., top : top + 4, left : left + 4]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "millions"), [("imagen_base", 2387), ("imagen_256", 639), ("imagen_1024", 637)]
)
def test_the_papers_sizes_have_their_numbers_of_parameters(name, millions):
    """2B, 600M and 400M in the paper; the last has the blocks of the one before, as listed."""
    path = Path(__file__).parents[2] / f"configs/{name}.yaml"
    sizes = yaml.safe_load(path.read_text())["model"]["network"]
    arguments = {k: v for k, v in sizes["init_args"].items() if k != "augmentation"}
    route = arguments["streams"]["text"]["init_args"]["route"]
    kind = {"UNet": UNet, "Upsampler": Upsampler}[sizes["class_path"]]
    with torch.device("meta"):
        text = {"text": Stream(Letters(4096, 128), route)}  # T5-XXL's width
        network = kind(**{**arguments, "streams": text})
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions
