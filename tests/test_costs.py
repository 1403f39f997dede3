"""What benchmarks/ count and compare: FLOPs by hand, bytes by the profiler, rates by formulas."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import speed
import torch
from cost import ATTENTION, Op, cost, flops
from scaling_counts import model
from scaling_rates import BUCKET, LATENCY, LINE, NVLINK, Chip, reduce_seconds
from speed import compared
from speed_profile import OPERATORS, shares
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from diffusion.networks import DiT, UNet
from diffusion.networks.half_precision import attend

C, P, E, B = 8, 64, 32, 3  # channels, positions, width of the embedding, pictures


def small(checkpointing=False):
    shape = {"channels": C, "multipliers": [1], "attention": [], "blocks": 1}
    return UNet(8, 1, checkpointing=checkpointing, **shape)


def batch(n=B, channels=1, size=8):
    return lambda: ((torch.randn(n, channels, size, size), torch.randint(1, 9, (n,))), {})


def conv(a, b, side=3):
    return 2 * P * side**2 * a * b


def block(a, b):
    return conv(a, b) + conv(b, b) + 2 * E * b + (a != b) * conv(a, b, 1)


def test_flops_are_those_counted_by_hand():
    qkv_and_out, softmax = 2 * P * C * 4 * C, 2 * 2 * P * P * C
    embedding = 2 * C * E, 2 * E * E
    blocks = 3 * block(C, C) + 2 * block(2 * C, C)  # down and middle; up, beside a skip
    forward = sum(embedding) + conv(1, C) + blocks + qkv_and_out + softmax + conv(C, 1)
    # Twice the forward pass, without gradients of x_t and of t; attention's scores a second time.
    backward = 2 * forward - conv(1, C) - embedding[0] + softmax // 2
    found = cost(small(), batch())
    assert flops(found.forward) == B * forward
    assert flops(found.step) == B * (forward + backward)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        (x_t, t), _ = batch()()
        small()(x_t, t).square().mean().backward()
    assert counter.get_total_flops() == B * (forward + backward)
    assert flops(cost(small(checkpointing=True), batch()).forward) == B * forward


def changes(profiler):
    """The bytes taken, and given back where negative, in order."""
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return [e.nbytes() for e in sorted(events, key=lambda event: event.start_ns())]


def test_bytes_are_those_that_are_allocated():
    network = UNet(16, 3, channels=32, multipliers=[1, 2], attention=[8], blocks=1)
    made = batch(4, 3, 16)
    found = cost(network, made)
    network.zero_grad()
    (x_t, t), _ = made()
    options = {"activities": [ProfilerActivity.CPU], "profile_memory": True}
    with profile(**options) as ahead:
        loss = network(x_t, t).square().mean()
    with profile(**options) as back:
        loss.backward()
    taken = torch.tensor([*changes(ahead), *changes(back)]).cumsum(0)
    left = taken[len(changes(ahead)) - 1].item()
    assert found.saved == pytest.approx(left, rel=1e-3)
    assert found.peak == pytest.approx(taken.max().item(), rel=0.02)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(C, C)

    def forward(self, x, t):
        h = self.layer(x)
        return attend(h, h, h)


def test_attention_is_counted_in_bfloat16_as_a_gpu_computes_it():
    """Two products of B N² d, and four tensors of two bytes, with a logarithm a row in float32."""
    made = lambda: ((torch.randn(B, 1, P, C), torch.zeros(B)), {})  # noqa: E731
    found = cost(Attends(), made, bf16=True)
    assert Op(2 * 2 * B * P * P * C, 4 * 2 * B * P * C + 4 * B * P) in found.forward


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_without_numbers_it_is_the_same(checkpointing):
    found = cost(small(checkpointing), batch())
    with FakeTensorMode():
        shadow = small(checkpointing)
        same = cost(shadow, batch())
        less = cost(shadow, batch(), bf16=True)
    assert (found.saved, found.peak, found.step) == (same.saved, same.peak, same.step)
    assert flops(less.step) == flops(same.step)


@pytest.mark.slow
def test_the_script_writes_its_page(tmp_path):
    (tmp_path / "results").mkdir()
    page = tmp_path / "benchmarks.md"
    page.write_text(Path("docs/benchmarks.md").read_text())
    tiny = "--repeats 1 --channels 8 --size 16 --batch 2 --threads 1 --parts peers guidance"
    speed.main([*tiny.split(), "--to", str(tmp_path)])
    for what in ("diffusers, best", "bare loop", "guided B, outside its interval"):
        assert what in page.read_text()
    assert (tmp_path / "results/speed.png").exists()


def test_an_operator_is_bound_by_one_of_three():
    chip = Chip(flops=100.0, bandwidth=10.0, share=0.5, reach=0.5, launch=1.0, host=1.5)
    assert chip.seconds([Op(1000, 5)], host=False) == 20
    assert chip.seconds([Op(50, 25)], host=False) == 5
    assert chip.seconds([Op(5, 1)] * 3, host=False) == 3
    assert chip.seconds([Op(5, 1)] * 3) == 4.5


def test_a_ring_sends_nearly_everything_twice():
    rate = LINE * NVLINK
    assert reduce_seconds(BUCKET, 1) == 0
    assert reduce_seconds(8e9, 8) == pytest.approx(2 * 7 * (1e9 / rate + LATENCY))


def test_ratios_are_taken_within_rounds():
    rows = compared({"ours": [1.0, 2.0, 4.0], "theirs": [1.5, 2.0, 8.0]}, 8, part="peers")
    assert [row["seconds"] for row in rows] == ["2", "2"]
    assert [row["ratio"] for row in rows] == ["1.000", "1.500"]  # not the ratio of the medians
    assert (rows[1]["ratio_q25"], rows[1]["ratio_q75"]) == ("1.250", "1.750")
    assert rows[0]["images_per_second"] == "4"


def forward_gflops(network, channels, **conditions):
    """Of a picture, a multiplication with its addition as one, as papers count them."""

    def pictures():
        x = torch.randn(1, channels, network.image_size, network.image_size)
        return (x, torch.ones(1).long()), conditions

    return flops(cost(network, pictures, False).forward) / 2e9


@pytest.mark.parametrize(
    ("name", "published"), [("adm_imagenet256", 1120), ("adm_imagenet512", 1983)]
)
def test_adm_costs_what_dits_paper_says(name, published):
    """Peebles & Xie 2023 (https://arxiv.org/abs/2212.09748), section 5.1."""
    with FakeTensorMode():
        network, _ = model(name)
        found = forward_gflops(network, 3, label=torch.ones(1).long())
    assert found == pytest.approx(published, rel=5e-4)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "published"),
    [(384, 12, 6, 6.06), (768, 12, 12, 23.01), (1024, 24, 16, 80.71), (1152, 28, 16, 118.64)],
)
def test_dit_costs_what_its_paper_says(width, depth, heads, published):
    """Table 4 of the same: S, B, L and XL, with patches of 2, on latents of 32 x 32 x 4."""
    with FakeTensorMode():
        network = DiT(32, 4, 8, 2, width, depth, heads, num_classes=1000)
        found = forward_gflops(network, 4, label=torch.ones(1).long())
    assert found == pytest.approx(published, rel=2e-3)


def test_what_is_built_in_is_its_callers_but_an_operator_where_a_network_calls():
    noise, network = ("/a/diffusion/noise.py", 1, "f"), ("/a/diffusion/networks/mlp.py", 2, "g")
    layer, loop = ("/b/torch/nn/linear.py", 3, "h"), ("/b/lightning/loops/fit.py", 4, "i")

    def times(own, callers=()):
        return 1, 1, own, own, {where: (1, 1, part, part) for where, part in callers}

    built_in = times(6.0, [(noise, 1.0), (network, 2.0), (layer, 3.0)])
    python = {noise: times(1.0), network: times(0.5), layer: times(1.5), loop: times(1.0)}
    found = shares(SimpleNamespace(stats={("~", 0, "<multiply>"): built_in, **python}))
    expected = {
        OPERATORS: 6.5,
        "numbers drawn by counting": 2.0,
        "Lightning's loops and hooks": 1.0,
        "the network's own Python": 0.5,
    }
    assert found == {name: pytest.approx(value / 10) for name, value in expected.items()}
