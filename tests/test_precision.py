"""Losses and gradients in bfloat16 and float16 beside float32's, for what is trained.

As `trainer.precision` bf16-mixed and 16-mixed have it: the weights are float32, autocast decides
what is computed in 16 bits, and for float16 the loss is scaled. Kernels of a GPU are others.
"""

import pytest
import torch
from captioned import Numbers

from diffusion.condition import Condition
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser
from diffusion.networks import MLP, DiT, EmbeddingPrior, LinearUNet, Stream, UNet
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.style import Style
from diffusion.objective import Distilled, Hybrid, MinSNR, Simple, VariationalBound
from diffusion.objective.distilled import Teacher
from diffusion.parameterization import Eps, V
from diffusion.process import Cosine
from diffusion.spec import DataSpec

TEXTS = {"text": ["0.1 0.2 0.3 0.4", "1 -1 2 0"] * 4}
LABELS = {"label": torch.arange(8) % 3}
PUBLISHED = {"family": "openai", "scale_shift": True, "resample": "block", "head_width": 8}
SCALES = (2.0**10, 2.0**5, 1.0)  # of the loss: a GradScaler goes down too where one is too much


def unet(**options):
    given = {"channels": 8, "multipliers": (1, 2), "attention": (8,), "blocks": 1, "groups": 4}
    return UNet(8, 1, **{**given, **options})


def reader(route, **options):
    return unet(streams={"text": Stream(Numbers(4), route)}, **options)


NETWORKS = {
    "ddpm": (lambda: unet(num_classes=3), LABELS),
    "published": (lambda: unet(num_classes=3, **PUBLISHED), LABELS),
    "joined tokens": (lambda: reader("join", patch=2, attention=(4,)), TEXTS),
    "crossed tokens": (lambda: reader("cross", checkpointing=True), TEXTS),
    "linear attention": (
        lambda: LinearUNet(
            1, None, 8, None, (1, 2), heads=(2, 2), head_widths=(8, 8), full=(False, True)
        ),
        {},
    ),
    "transformer": (
        lambda: DiT(8, 1, patch=4, width=32, depth=2, heads=2, num_classes=3),
        LABELS,
    ),
    "points": (lambda: MLP(width=32, depth=2), {}),
    "prior": (lambda: EmbeddingPrior(6, Numbers(4), 16, 2, 2), TEXTS),
}
SHAPES = {"points": (2,), "prior": (6,)}


def away_from_zero(network):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


class Known(Teacher):
    """A teacher of the same kind as the student, with other weights."""

    def read(self):
        made = away_from_zero(unet(num_classes=3, channels=12))
        return FrozenDenoiser(NetworkDenoiser(made, Cosine(1000), V()), DataSpec("x", (1, 8, 8)))


def of_training(denoiser, objective, shape, values, dtype, scale=1.0):
    """Returns the losses, and the gradient as `MixedPrecision` unscales it."""
    torch.manual_seed(0)
    x_0 = torch.rand(8, *shape) * 2 - 1
    t, eps = torch.tensor([1, 50, 250, 400, 500, 750, 950, 1000]), torch.randn_like(x_0)
    if isinstance(objective, Distilled):
        t = torch.tensor([250, 500, 750, 1000] * 2)
    cond = Condition(values, {})
    denoiser.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        losses = objective(denoiser, x_0, cond, t, eps)
        loss = objective.weigh(t, losses).mean()
    (scale * loss).backward()
    assert losses.dtype == loss.dtype == torch.float32
    grads = [p.grad.flatten() / scale for p in denoiser.parameters() if p.grad is not None]
    return losses.detach(), torch.cat(grads)


def check(denoiser, objective, shape, values):
    """float16 has three bits more than bfloat16, and so is nearer."""
    exact, slope = of_training(denoiser, objective, shape, values, torch.float32)
    for dtype, near, steep in ((torch.bfloat16, 0.01, 0.04), (torch.float16, 0.001, 0.006)):
        every = (of_training(denoiser, objective, shape, values, dtype, x) for x in SCALES)
        losses, grad = next(found for found in every if found[1].isfinite().all())
        torch.testing.assert_close(losses, exact, rtol=near, atol=near * exact.mean().item())
        assert (grad - slope).norm() < steep * slope.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    make, of = NETWORKS[name]
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(away_from_zero(make()), Cosine(1000), V())
    values = of if of is not TEXTS else denoiser.contract.read(of)
    check(denoiser, Simple(), SHAPES.get(name, (1, 8, 8)), values)


@pytest.mark.parametrize(
    ("objective", "meaning"),
    [
        (MinSNR(), V()),
        (VariationalBound("learned"), V()),
        (VariationalBound("learned"), Eps()),
        (Hybrid(), Eps()),
        (Distilled(Known(), 4), V()),
    ],
    ids=lambda x: type(x).__name__,
)
def test_objectives(objective, meaning):
    channels = 2 if objective.variance == "learned" else 1
    network = away_from_zero(unet(num_classes=3, out_channels=channels))
    check(NetworkDenoiser(network, Cosine(1000), meaning), objective, (1, 8, 8), LABELS)


def test_logits_beyond_float16_are_no_infinities():
    """qᵀk is larger than 65,504 before 1/√d and the softmax, where float16 ends."""
    torch.manual_seed(0)
    layer = away_from_zero(SelfAttention(8, Style(16, groups=4)))
    with torch.no_grad():
        layer.qkv.weight[:16].mul_(1500)
    h = torch.randn(2, 8, 4, 4)
    tokens = layer.norm(h).flatten(2).transpose(1, 2)
    q, k = (tokens @ w.T for w in layer.qkv.weight.reshape(3, 8, 8)[:2])
    assert (q @ k.transpose(1, 2)).abs().max() > 65504
    with torch.autocast("cpu", torch.float16):
        found = layer(h)
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), layer(h), rtol=0.02, atol=0.02)
