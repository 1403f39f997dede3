import math

import pytest
import torch
import torch.nn.functional as F

from diffusion.networks import UNet
from diffusion.networks.embedding import sinusoidal
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.blocks import Downsample, ResBlock
from diffusion.networks.unet.style import Style

ADM = {"family": "openai", "scale_shift": True, "resample": "block", "out_channels": 2}


@pytest.fixture
def unet():
    """A small network for Fashion-MNIST with no weight left at zero."""
    torch.manual_seed(0)
    network = tiny()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def tiny(**changes):
    settings = {"channels": 8, "multipliers": (1, 2), "attention": (7,), "blocks": 1}
    return UNet(28, 1, **{**settings, "num_classes": 10, "patch": 2, **changes})


def batch(n=4):
    torch.manual_seed(1)
    return torch.randn(n, 1, 28, 28), torch.randint(1, 1001, (n,)), torch.randint(0, 11, (n,))


def test_defaults_are_the_cifar10_network_of_ddpm():
    with torch.device("meta"):
        network = UNet()
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    assert network.null == {}
    assert network.conditions == ()


@pytest.mark.parametrize("dim", [64, 128])
def test_sinusoidal_embedding_is_the_formula(dim):
    half = dim // 2
    for t in (0, 1, 999):
        value = sinusoidal(torch.tensor([t]), dim)[0]
        angles = [t * 10000 ** (-i / (half - 1)) for i in range(half)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(value, torch.tensor(expected), rtol=0, atol=1e-4)
    # The lowest of half frequencies is 1e-4 only because the exponent divides by half − 1.
    assert sinusoidal(torch.tensor([1]), dim)[0, half - 1].item() == pytest.approx(1e-4, rel=1e-5)


def test_the_openai_sinusoids_are_the_other_formula():
    angles = [700 * 10000 ** (-i / 32) for i in range(32)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    value = sinusoidal(torch.tensor([700]), 64, "openai")[0]
    torch.testing.assert_close(value, torch.tensor(expected), rtol=0, atol=1e-4)
    # 1.33e-4, where DDPM's last frequency is 1e-4.
    last = sinusoidal(torch.tensor([1]), 64, "openai")[0, -1].item()
    assert last == pytest.approx(10000 ** (-31 / 32), rel=1e-5)


def test_time_is_scaled_before_it_is_embedded(unet):
    x_t, t, label = batch()
    quarter = tiny(time_scale=0.25).eval()
    quarter.load_state_dict(unet.state_dict())
    expected = unet(x_t, 1 + (t - 1) / 4, label=label)
    torch.testing.assert_close(quarter(x_t, t, label=label), expected)


def test_time_is_embedded_from_zero():
    network, time = tiny(), torch.tensor([1])
    expected = network.embedding.time_in(sinusoidal(torch.tensor([0]), 8))
    expected = network.embedding.time_out(F.silu(expected))
    expected = expected + network.get_parameter("embedding.label.weight")[-1]
    torch.testing.assert_close(network.embedding(time), expected)


def test_float_times_equal_integer_times(unet):
    x_t, t, label = batch()
    assert torch.equal(unet(x_t, t, label=label), unet(x_t, t.float(), label=label))


@pytest.mark.parametrize(
    "changes", [{}, {"patch": 1, "attention": (14,)}, {"out_channels": 2}, ADM]
)
def test_output_is_zero_at_initialisation(changes):
    x_t, t, label = batch()
    output = tiny(**changes)(x_t, t, label=label)
    assert torch.equal(output, torch.zeros(4, changes.get("out_channels", 1), 28, 28))


def test_initial_scales_are_the_papers():
    torch.manual_seed(0)
    network = tiny(channels=64)
    for name in ("block.conv_out", "attention.out"):
        assert not network.get_parameter(f"middle.0.{name}.weight").any()
    for weight in network.get_parameter("middle.0.attention.qkv.weight").chunk(3):
        # Q, K and V are layers of their own.
        assert weight.std().item() == pytest.approx(128**-0.5, rel=0.02)
    weight = network.get_parameter("middle.0.block.conv_in.weight")
    assert weight.std().item() == pytest.approx((9 * 128) ** -0.5, rel=0.02)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)


def test_the_openai_family_starts_as_pytorch_does():
    torch.manual_seed(0)
    network = tiny(channels=64, **ADM)
    for name in ("middle.0.block.conv_out", "middle.0.attention.out", "down.1.conv_out"):
        layer = network.get_submodule(name)
        assert not any(p.any() for p in layer.parameters())
    weight = network.get_parameter("middle.0.block.conv_in.weight")
    assert weight.std().item() == pytest.approx((3 * 9 * 128) ** -0.5, rel=0.02)
    weight = network.get_parameter("middle.0.attention.qkv.weight")
    assert weight.std().item() == pytest.approx((3 * 128) ** -0.5, rel=0.02)
    assert network.get_parameter("middle.0.block.conv_in.bias").any()


def test_patch_is_undone_exactly():
    """With the identity in between, what goes in comes out."""
    x = torch.randn(2, 3, 28, 28)
    assert torch.equal(F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), x)
    network = tiny()
    for name in ("conv_in", "conv_out", "norm_out"):
        setattr(network, name, torch.nn.Identity())
    for name in ("down", "middle", "up"):
        setattr(network, name, torch.nn.ModuleList())
    x_t, t, _ = batch()
    assert torch.equal(network(x_t, t), F.silu(x_t))


def test_an_input_skip_adds_scales_of_the_pixels_of_a_patch():
    plain, skipping = tiny(), tiny(input_skip=True)
    missing, _ = skipping.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["input_scale.weight", "input_scale.bias"]
    x, t, label = batch()
    torch.testing.assert_close(skipping(x, t, label), plain(x, t, label), rtol=0, atol=0)
    scales = torch.tensor([0.5, 2.0, -1.0, 3.0])
    torch.nn.init.zeros_(skipping.conv_out.weight)
    skipping.input_scale.bias.data.copy_(scales)
    expected = x * scales.view(2, 2).repeat(14, 14)
    torch.testing.assert_close(skipping(x, t, label), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="expected 1 with input_skip"):
        tiny(input_skip=True, out_channels=2)


@pytest.mark.parametrize(
    ("family", "sums"),
    [("ddpm", [[45.0, 39.0], [66.0, 50.0]]), ("openai", [[10.0, 24.0], [51.0, 90.0]])],
)
def test_the_family_decides_where_downsampling_pads(family, sums):
    """Sums over 3x3 windows of 0 … 15, by hand: at the end only, or on all sides."""
    layer = Downsample(1, Style(8, family=family))
    torch.nn.init.ones_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    h = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(layer(h, torch.zeros(1, 8)), torch.tensor([[sums]]))


@pytest.mark.parametrize(("family", "eps"), [("ddpm", 1e-6), ("openai", 1e-5)])
def test_the_family_decides_the_epsilon_of_norms(family, eps):
    torch.manual_seed(0)
    h = 1e-3 * torch.randn(2, 8, 16, 16)  # so small that ε shows
    grouped = h.unflatten(1, (2, 4)).flatten(2)
    variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
    expected = ((grouped - mean) / (variance + eps).sqrt()).view_as(h)
    torch.testing.assert_close(Style(8, groups=2, family=family).norm(8)(h), expected)


@pytest.mark.parametrize("resize", ["down", "up"])
def test_a_block_resizes_both_branches(resize):
    """Every other position, or squares of four equal ones, show which way h went."""
    torch.manual_seed(0)
    style = Style(8, family="openai", scale_shift=True)
    block = ResBlock(8, 8, style, resize=resize)
    h, emb = torch.randn(1, 8, 4, 4), torch.randn(1, 8)
    if resize == "down":
        sized = h.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))
    else:
        sized = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(block(h, emb), sized)  # the last convolution starts at zero
    torch.nn.init.dirac_(block.conv_out.weight)
    branch = F.silu(block.norm_in(h))
    branch = F.avg_pool2d(branch, 2) if resize == "down" else F.interpolate(branch, scale_factor=2)
    scale, shift = block.emb(emb)[0, :8], block.emb(emb)[0, 8:]
    branch = block.norm_out(block.conv_in(branch)) * (1 + scale)[:, None, None]
    expected = sized + F.silu(branch + shift[:, None, None])
    torch.testing.assert_close(block(h, emb), expected)


@pytest.mark.parametrize("order", ["qkv-heads", "heads-qkv"])
def test_attention_heads_read_their_own_slices(order):
    torch.manual_seed(0)
    layer = SelfAttention(8, Style(8, heads=2, qkv_order=order))
    torch.nn.init.eye_(layer.out.weight)
    h = torch.randn(2, 8, 3, 3)
    rows = layer.qkv(layer.norm(h).flatten(2).mT)
    starts = [(0, 8, 16), (4, 12, 20)] if order == "qkv-heads" else [(0, 4, 8), (12, 16, 20)]
    heads = []
    for head in starts:
        q, k, v = (rows[..., i : i + 4] for i in head)
        heads.append(torch.softmax(q @ k.mT / 2, dim=2) @ v)
    expected = h + torch.cat(heads, dim=2).mT.reshape(2, 8, 3, 3)
    torch.testing.assert_close(layer(h), expected)


def test_the_width_of_heads_decides_their_number():
    assert SelfAttention(32, Style(8, heads=3, head_width=8)).heads == 4
    with pytest.raises(ValueError, match="head_width: 12; expected a divisor of the 32 channels"):
        SelfAttention(32, Style(8, head_width=12))


def test_label_changes_output_and_none_is_null(unet):
    x_t, t, _ = batch()
    three, seven = (unet(x_t, t, label=torch.full((4,), k)) for k in (3, 7))
    assert (three - seven).abs().max() > 1e-3
    null = torch.full((4,), unet.null["label"])
    assert torch.equal(unet(x_t, t), unet(x_t, t, label=null))


def test_null_row_is_trained(unet):
    x_t, t, _ = batch()
    unet(x_t, t, label=torch.tensor([0, 10, 0, 10])).square().sum().backward()
    used = unet.embedding.label.weight.grad.abs().sum(dim=1) > 0
    assert used.nonzero().flatten().tolist() == [0, 10]


def test_without_a_null_class_labels_are_needed():
    network = tiny(null_class=False)
    assert network.null == {}
    assert network.conditions == ("label",)
    assert network.embedding.label.weight.shape == (10, 32)
    with pytest.raises(ValueError, match="label: missing; expected classes"):
        network(*batch()[:2])


@pytest.mark.parametrize("changes", [{}, ADM])
def test_checkpointing_changes_nothing_but_memory(changes):
    x_t, t, label = batch()
    outcomes, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = tiny(dropout=0.3, checkpointing=checkpointing, **changes)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        network.middle[0].register_forward_pre_hook(lambda *_: calls.append(1))
        torch.manual_seed(1)
        output = network(x_t, t, label=label)
        output.square().mean().backward()
        outcomes.append([output.detach(), *(p.grad for p in network.parameters())])
        with torch.no_grad():
            network(x_t, t, label=label)
        network.eval()(x_t, t, label=label)
        calls.append(0)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    assert calls == [1, 1, 1, 0, 1, 1, 1, 1, 0]


def test_samples_do_not_depend_on_each_other(unet):
    x_t, t, label = batch()
    together = unet(x_t, t, label=label)
    alone = torch.cat(
        [unet(x_t[i : i + 1], t[i : i + 1], label=label[i : i + 1]) for i in range(4)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_channels_last_equals_contiguous(unet):
    x_t, t, label = batch()
    expected = unet(x_t, t, label=label)
    fast = unet.to(memory_format=torch.channels_last)
    output = fast(x_t.to(memory_format=torch.channels_last), t, label=label)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_autocast_stays_close(unet):
    x_t, t, label = batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = unet(x_t, t, label=label)
    expected = unet(x_t, t, label=label)
    assert (output - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("changes", [{}, {**ADM, "head_width": 8, "checkpointing": True}])
def test_forward_is_one_graph(changes):
    """Nothing in it waits for a value of the device."""
    torch.manual_seed(0)
    network = tiny(**changes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x_t, t, label = batch()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    expected = network(x_t, t, label=label)
    torch.testing.assert_close(compiled(x_t, t, label=label), expected)


@pytest.mark.parametrize(
    ("channels", "count"), [(128, 32), (256, 32), (160, 32), (64, 16), (48, 12), (80, 20), (6, 1)]
)
def test_groups(channels, count):
    assert Style(8).norm(channels).num_groups == count


@pytest.mark.parametrize(("channels", "count"), [(128, 32), (64, 32), (32, 16), (6, 3)])
def test_groups_of_the_openai_family(channels, count):
    """Its published classifier for 512 x 512 has 64 channels in 32 groups."""
    assert Style(8, family="openai").norm(channels).num_groups == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": (1, 2, 2)}, "image_size: 28; expected a multiple of .* = 8"),
        ({"multipliers": ()}, r"multipliers: \(\)"),
        ({"multipliers": (1, 0)}, r"multipliers: \(1, 0\)"),
        ({"multipliers": (0.3, 1)}, r"multipliers: \(0.3, 1\); expected whole multiples of 1 / 8"),
        ({"patch": 0}, "patch: 0"),
        ({"attention": (16,)}, r"attention: \[16\]; expected resolutions among \[14, 7\]"),
        ({"blocks": 0}, "blocks: 0"),
        ({"heads": 3}, "heads: 3; expected a divisor of the 16 channels"),
        ({"head_width": 5}, "head_width: 5; expected a divisor of the 16 channels"),
        ({"head_width": 0}, "head_width: 0"),
        ({"channels": 7}, "channels: 7"),
        ({"channels": -2}, "channels: -2"),
        ({"num_classes": 0}, "num_classes: 0"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny(**changes)
    assert "\n" not in str(error.value)


def test_label_without_classes_is_an_error():
    x_t, t, label = batch()
    with pytest.raises(ValueError, match="label: given; expected none"):
        tiny(num_classes=None)(x_t, t, label=label)
