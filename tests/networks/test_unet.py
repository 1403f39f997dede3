import math

import pytest
import torch
import torch.nn.functional as F

from diffusion.networks import UNet
from diffusion.networks.layers import Downsample, SelfAttention, group_norm, sinusoidal


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


def test_time_is_embedded_from_zero():
    network, time = tiny(), torch.tensor([1])
    expected = network.embedding.time_in(sinusoidal(torch.tensor([0]), 8))
    expected = network.embedding.time_out(F.silu(expected))
    expected = expected + network.get_parameter("embedding.label.weight")[-1]
    torch.testing.assert_close(network.embedding(time), expected)


def test_float_times_equal_integer_times(unet):
    x_t, t, label = batch()
    assert torch.equal(unet(x_t, t, label=label), unet(x_t, t.float(), label=label))


@pytest.mark.parametrize("changes", [{}, {"patch": 1, "attention": (14,)}, {"out_channels": 2}])
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


def test_downsampling_pads_the_end_only():
    layer = Downsample(1)
    torch.nn.init.ones_(layer.conv.weight)
    h = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor([[[[45.0, 39.0], [66.0, 50.0]]]])  # window sums, by hand
    torch.testing.assert_close(layer(h, torch.zeros(1, 1)), expected)


def test_attention_heads_read_their_own_slices():
    torch.manual_seed(0)
    layer = SelfAttention(8, heads=2)
    torch.nn.init.eye_(layer.out.weight)
    h = torch.randn(2, 8, 3, 3)
    q, k, v = layer.qkv(layer.norm(h).flatten(2).mT).chunk(3, dim=2)
    heads = [
        torch.softmax(q[..., s] @ k[..., s].mT / 2, dim=2) @ v[..., s]
        for s in (slice(0, 4), slice(4, 8))
    ]
    expected = h + torch.cat(heads, dim=2).mT.reshape(2, 8, 3, 3)
    torch.testing.assert_close(layer(h), expected)


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


def test_forward_is_one_graph(unet):
    """Nothing in it waits for a value of the device."""
    x_t, t, label = batch()
    compiled = torch.compile(unet, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x_t, t, label=label), unet(x_t, t, label=label))


@pytest.mark.parametrize(
    ("channels", "count"), [(128, 32), (256, 32), (160, 32), (64, 16), (48, 12), (80, 20), (6, 1)]
)
def test_groups(channels, count):
    assert group_norm(channels).num_groups == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": (1, 2, 2)}, "image_size=28: expected a multiple of .* = 8"),
        ({"multipliers": ()}, r"multipliers=\(\)"),
        ({"multipliers": (1, 0)}, r"multipliers=\(1, 0\)"),
        ({"patch": 0}, "patch=0"),
        ({"attention": (16,)}, r"attention=\[16\]: expected resolutions among \[14, 7\]"),
        ({"blocks": 0}, "blocks=0"),
        ({"heads": 3}, "heads=3: expected a divisor of the 16 channels"),
        ({"channels": 7}, "channels=7"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny(**changes)
    assert "\n" not in str(error.value)


def test_label_without_classes_is_an_error():
    x_t, t, label = batch()
    with pytest.raises(ValueError, match="label was given"):
        tiny(num_classes=None)(x_t, t, label=label)
