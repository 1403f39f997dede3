import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion.networks.half_precision import GroupNorm, attend
from diffusion.networks.unet.unet import UNet

HALF = [torch.bfloat16, torch.float16]


def drawn(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def softmax_read(q, k, v, bias):
    scores = q.double() @ k.double().mT / q.shape[-1] ** 0.5
    return (scores + bias.double()).softmax(-1) @ v.double()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_read_in_float32(dtype, autocast):
    """What is left is the rounding of the result; bfloat16's own kernel rounds the softmax too."""
    q, k, v, bias = drawn((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (2, 1, 1, 7), dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        values = attend(q, k, v, bias)
    assert values.dtype == dtype
    exact = softmax_read(q, k, v, bias)
    assert torch.equal(values, exact.to(dtype)) or (values - exact).abs().max() < 2**-7


def test_a_mask_and_the_order_of_time_are_obeyed_in_half_precision():
    q, k, v = drawn((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), dtype=torch.bfloat16)
    below = torch.ones(4, 4, dtype=torch.bool).tril()
    bias = torch.zeros(4, 4).masked_fill(~below, -torch.inf)
    exact = softmax_read(q, k, v, bias).bfloat16()
    for values in (attend(q, k, v, below), attend(q, k, v, causal=True)):
        torch.testing.assert_close(values, exact, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_numbers_are_left_to_pytorch(dtype):
    q, k, v, bias = drawn((1, 2, 4, 8), (1, 2, 6, 8), (1, 2, 6, 8), (1, 2, 4, 6), dtype=dtype)
    values = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    assert torch.equal(attend(q, k, v, bias), values)
    (h,) = drawn((2, 8, 4, 4), dtype=dtype)
    norm = GroupNorm(4, 8).to(dtype)
    assert torch.equal(norm(h), nn.GroupNorm(4, 8).to(dtype)(h))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_groups_of_half_precision_have_their_moments_in_float32(weights):
    """A mean of 100 beside deviations of 1, which is 7 bits of bfloat16's 8."""
    (h,) = drawn((2, 8, 16, 16))
    h = (h + 100).bfloat16()
    norm = GroupNorm(4, 8).to(weights)
    x = h.double().unflatten(1, (4, 2))
    exact = (x - x.mean((2, 3, 4), keepdim=True)) / x.var((2, 3, 4), False, keepdim=True).sqrt()
    assert norm(h).dtype == torch.bfloat16
    torch.testing.assert_close(norm(h).double(), exact.flatten(1, 2), rtol=2**-8, atol=1e-3)


def test_autocast_gives_the_gradients_of_float32_up_to_bfloat16s_rounding():
    """Of a whole network with attention: as near as those of its convolutions let it be."""
    torch.manual_seed(0)
    network = UNet(8, channels=32, multipliers=[1, 2], attention=[8, 4], blocks=1)
    for p in network.parameters():
        nn.init.normal_(p, std=0.1) if p.ndim > 1 else None
    x, t = torch.randn(4, 3, 8, 8), torch.rand(4)
    grads = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            network(x, t).float().square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert F.cosine_similarity(*grads, dim=0) > 0.995
