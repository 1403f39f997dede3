"""Compiled networks: the same numbers, names and counts, one graph, whatever the batch."""

import copy
from types import SimpleNamespace

import pytest
import torch
from captioned import Numbers, SmallIdentity
from torch import nn
from torch._dynamo.utils import counters

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import ClassifierFree, ControlStrength, Static
from diffusion.metrics.evaluations import Evaluations
from diffusion.networks import (
    Augmentation,
    ControlNet,
    DiT,
    EmbeddingPrior,
    Hint,
    IdentityTokens,
    Inpainter,
    InstantID,
    IPAdapter,
    LinearUNet,
    Locked,
    ResampledIdentity,
    Stream,
    UNet,
    Upsampler,
)
from diffusion.networks.compiled import compile_in_place
from diffusion.noise import SeededNoise
from diffusion.objective import Simple
from diffusion.parameterization import V
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.averages import EMA

TINY = {"image_size": 8, "in_channels": 1, "channels": 4, "groups": 2, "blocks": 1}
TINY |= {"multipliers": (1,), "attention": (8,)}
DEEP = TINY | {"multipliers": (1, 2), "attention": (4,)}


def read():
    return {
        "text": Stream(Numbers(4), weight=0.5),
        "tags": Stream(Numbers(4), route="cross"),
    }


def base():
    return Locked(randomised(UNet(**TINY, streams={"text": Stream(Numbers(4))})))


NETWORKS = {
    "labels": lambda: UNet(**DEEP, num_classes=3, family="openai", scale_shift=True),
    "texts": lambda: UNet(**DEEP, streams=read(), checkpointing=True),
    "upsampler": lambda: Upsampler(Augmentation(Cosine(20), 10, 4), **DEEP),
    "inpainter": lambda: Inpainter(**DEEP),
    "controls": lambda: ControlNet(
        Locked(randomised(UNet(**TINY, num_classes=3))), {"edges": Hint(1, [4])}, "decoder", True
    ),
    "adapter": lambda: IPAdapter(base(), IdentityTokens(SmallIdentity(channels=1), 2, 4)),
    "instant_id": lambda: InstantID(
        base(),
        ResampledIdentity(SmallIdentity(channels=1), 2, 4, depth=1, heads=2, hidden=4),
        Hint(1, [4]),
    ),
    "transformer": lambda: DiT(8, 3, patch=4, width=8, depth=1, heads=2, num_classes=3),
    "linear attention": lambda: LinearUNet(
        1, None, 4, None, (1, 2), heads=(1, 2), head_widths=(4, 4), full=(False, True)
    ),
    "prior": lambda: EmbeddingPrior(6, Numbers(4), 8, 1, 2),
}
# PyTorch lays the gradient of one channel, unfolded, out otherwise than `aot_eager` has traced it;
# inductor takes the operation apart.
SHAPES = {"prior": (6,), "transformer": (3, 8, 8)}


@torch.no_grad()
def randomised(net):
    torch.manual_seed(1)
    for weight in net.parameters():
        weight.normal_(std=0.2)
    return net


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    counters.clear()

    def make(net, backend="eager"):
        net = randomised(net)
        plain = copy.deepcopy(net)
        compile_in_place(net, fullgraph=True, backend=backend)
        return net, plain

    yield make
    torch._dynamo.reset()


def conditions(net, n):
    pictures = ("edges", "image", "identity", "pose")
    batch = {"label": torch.arange(n) % 3, "low_res": torch.rand(n, 1, 4, 4)}
    batch |= {k: torch.rand(n, 1, 8, 8) for k in pictures}
    batch |= {"text": ["1 2 3 4"] * n, "tags": ["4 3 2 1"] * n}
    return net.read(batch, train=True)


def graphs():
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def step(denoiser, n, shape=(1, 8, 8)):
    """Returns the loss and the gradient of a training step, with other samples for every n."""
    torch.manual_seed(n)
    net = denoiser.network
    values = conditions(net, n)
    cond = Condition(values, dict(net.null)).drop(0.5, noise=SeededNoise(0, range(n)))
    x_0, noise = torch.rand(n, *shape), SeededNoise(1, range(n))
    t, eps = Simple().draw(denoiser.process, x_0, noise)
    loss = Simple()(denoiser, x_0, cond, t, eps).mean()
    weights = [p for p in net.parameters() if p.requires_grad]
    return [loss, *torch.autograd.grad(loss, weights, materialize_grads=True)]


def draw(denoiser, guidance, n):
    values = {"label": torch.arange(n) % 3, "edges": torch.ones(n, 1, 8, 8)}
    keys = denoiser.network.conditions
    cond = Condition({k: v for k, v in values.items() if k in keys}, dict(denoiser.network.null))
    sampler, x_T = Sampler(UniPC(), 3, guidance), SeededNoise(2, range(n)).normal((1, 8, 8))
    return sampler(denoiser.eval(), denoiser.process, x_T, cond)


def test_training_and_sampling_are_a_graph_each_whatever_the_batch(compiled):
    both = [NetworkDenoiser(net, Cosine(20), V()) for net in compiled(UNet(**TINY, num_classes=3))]
    assert both[0].state_dict().keys() == both[1].state_dict().keys()
    for n in (4, 4, 3, 5):
        torch.testing.assert_close(*(step(denoiser, n) for denoiser in both))
    assert graphs() == 1
    guidance = [ClassifierFree(2.0, interval=(5, 15)), Static()]
    for n in (2, 3):
        torch.testing.assert_close(*(draw(denoiser, guidance, n) for denoiser in both))
    assert graphs() == 2


class Small(nn.Module):
    """A network that is traced in no time."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x_t, t):
        return self.inner(x_t) * t[:, None, None, None]


def test_averages_are_swapped_and_calls_counted_and_copies_are_plain(compiled):
    net, plain = compiled(Small())
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([3, 5])
    with torch.no_grad():
        torch.testing.assert_close(net(x, t), plain(x, t))
        ema = EMA(0.9)
        ema.on_train_start(SimpleNamespace(optimizers=[]), net)
        for average, weight in zip(ema.average.values(), plain.parameters()):
            average.mul_(2)
            weight.mul_(2)
        with ema.averaged(net):
            torch.testing.assert_close(net(x, t), plain(x, t))
        counter = Evaluations()
        with counter.counting(net):
            net(x, t)
            net(torch.rand(3, 1, 8, 8), torch.tensor([1, 2, 3]))
    assert counter.rows == 5
    assert graphs() == 1
    assert copy.deepcopy(net)._compiled_call_impl is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_one_graph_with_its_gradients(compiled, name):
    net, plain = compiled(NETWORKS[name](), "aot_eager")
    both = [NetworkDenoiser(one, Cosine(20), V()) for one in (net, plain)]
    for n in (4, 3, 5):
        shape = SHAPES.get(name, (1, 8, 8))
        torch.testing.assert_close(*(step(denoiser, n, shape) for denoiser in both))
    assert graphs() == 1


@pytest.mark.slow
def test_controls_are_guided(compiled):
    both = [NetworkDenoiser(net, Cosine(20), V()) for net in compiled(NETWORKS["controls"]())]
    guidance = [ControlStrength("edges", 0.7, guess=True), ClassifierFree(2.0)]
    for n in (2, 3):
        torch.testing.assert_close(*(draw(denoiser, guidance, n) for denoiser in both))
    assert graphs() == 1
