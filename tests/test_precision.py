"""Losses and gradients in bfloat16 and float16 beside float32's, for what is trained.

As `trainer.precision` bf16-mixed and 16-mixed have it: the weights are float32, autocast decides
what is computed in 16 bits, and for float16 the loss is scaled. Kernels of a GPU are others.
"""

import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from captioned import Numbers, SmallClipImage, SmallIdentity
from exact import subclasses
from swapping import swapper
from torch import nn

import diffusion.cli.flags  # noqa: F401  # whatever a configuration can name
from diffusion.codec import Codec
from diffusion.condition import Condition
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser
from diffusion.guidance import NoiseAware, TextScore
from diffusion.networks import (
    MLP,
    Augmentation,
    BagOfWords,
    Blur,
    CaptionNetwork,
    ClassifierNetwork,
    ControlNet,
    CountedColours,
    DiT,
    EmbeddingPrior,
    Hint,
    IdentityTokens,
    ImageEmbedding,
    Inpainter,
    InstantID,
    IPAdapter,
    LinearUNet,
    Locked,
    PhotoTower,
    PixelMLP,
    PromptNetwork,
    ResampledIdentity,
    Stream,
    TextTransformer,
    Towers,
    UNet,
    Upsampler,
    ViT,
)
from diffusion.networks.locked import FromFile
from diffusion.networks.text.frozen_text import FrozenText
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.style import Style
from diffusion.objective import Distilled, Hybrid, MinSNR, Simple, VariationalBound, VLoss
from diffusion.objective.distilled import Teacher
from diffusion.parameterization import X0, Eps, LogOdds, Perturbed, V
from diffusion.process import Binomial, Cosine, Learned, Sohl2015
from diffusion.spec import DataSpec
from diffusion.systems.captioning.captioner import Captioner
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.cascade import Cascade
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.identity.identity_encoder import IdentityEncoder
from diffusion.systems.noisy_classifier import NoisyClassifier

CONFIGS = Path(__file__).parents[1] / "configs"
FIXED = Codec, FromFile, FrozenText, Locked, FrozenDenoiser, NoiseAware, TextScore, Cascade
WORDS = ["a red fox on the left", "a blue hen"] * 4
LABELS = {"label": torch.arange(8) % 3}
SMALL = {"channels": 8, "multipliers": (1, 2), "attention": (8,), "blocks": 1, "groups": 4}
TOWER = {"image_size": 8, "in_channels": 1, "head_width": 4, **SMALL}
PUBLISHED = {"family": "openai", "scale_shift": True, "resample": "block", "head_width": 8}
SCALES = (2.0**10, 2.0**5, 1.0)  # of the loss: a GradScaler goes down too where one is too much


def unet(**options):
    return UNet(8, 1, **{**SMALL, **options})


def reader(route, **options):
    return unet(streams={"text": Stream(Numbers(4), route)}, **options)


def adapted(of, identity, *more):
    return of(Locked(away_from_zero(reader("join"))), identity, *more)


def pictures(*shape):
    return torch.rand(8, *shape, generator=torch.Generator().manual_seed(2))


BATCH = {
    **LABELS,
    "text": ["0.1 0.2 0.3 0.4", "1 -1 2 0"] * 4,
    "embedding": pictures(12),
    "low_res": pictures(1, 4, 4),
    "mask": pictures(1, 8, 8).round(),
    **{name: pictures(1, 8, 8) for name in ("edges", "identity", "known", "pose")},
}
NETWORKS = {
    "ddpm": lambda: unet(num_classes=3),
    "published": lambda: unet(num_classes=3, **PUBLISHED),
    "joined tokens": lambda: reader("join", patch=2, attention=(4,)),
    "crossed tokens": lambda: reader("cross", checkpointing=True),
    "decoder": lambda: unet(streams={"embedding": Stream(ImageEmbedding(SmallClipImage()))}),
    "upsampler": lambda: Upsampler(
        Augmentation(Cosine(1000), 500, 100), Blur(), image_size=8, in_channels=1, **SMALL
    ),
    "inpainter": lambda: Inpainter(image_size=8, in_channels=1, **SMALL),
    "controls": lambda: ControlNet(
        Locked(away_from_zero(unet(num_classes=3))), {"edges": Hint(1, [4])}, "decoder"
    ),
    "adapter": lambda: adapted(IPAdapter, IdentityTokens(SmallIdentity(channels=1), 2, 4)),
    "instant_id": lambda: adapted(
        InstantID,
        ResampledIdentity(SmallIdentity(channels=1), 2, 4, depth=1, heads=2, hidden=8),
        Hint(1, [4]),
    ),
    "linear attention": lambda: LinearUNet(
        1, None, 8, None, (1, 2), heads=(2, 2), head_widths=(8, 8), full=(False, True)
    ),
    "transformer": lambda: DiT(8, 1, patch=4, width=32, depth=2, heads=2, num_classes=3),
    "points": lambda: MLP(width=32, depth=2),
    "prior": lambda: EmbeddingPrior(6, Numbers(4), 16, 2, 2),
}
SHAPES = {"points": (2,), "prior": (6,)}
BOUNDS = {
    "bits": lambda: NetworkDenoiser(PixelMLP((1, 8, 8), 32, 2), Binomial(1000), LogOdds()),
    "learned": lambda: NetworkDenoiser(
        MLP(2, 32, 2, out_channels=4), Learned(Sohl2015(1000)), Perturbed()
    ),
}


def captioner():
    tower = CountedColours(ViT(8, 3, 4, width=16, depth=1, heads=2, out_channels=6), units=8)
    made = CaptionNetwork(tower, 16, 1, 1, 2, length=24, rows=300, dropout=0.0)
    made.vocabulary.learn(WORDS[:1])
    return Captioner(made)


SYSTEMS = {
    "classifier": lambda: NoisyClassifier(ClassifierNetwork(num_classes=3, **TOWER), Cosine(1000)),
    "towers": lambda: Contrastive(
        Towers(ClassifierNetwork(num_classes=6, **TOWER), TextTransformer(8, 1, 2, 8, 64))
    ),
    "photographs": lambda: Contrastive(
        Towers(PhotoTower(16, 6, 16, 0.0, 32), TextTransformer(8, 1, 2, 8, 64), hidden=8)
    ),
    "captioner": captioner,
    "prompts": lambda: PromptUpsampler(
        PromptNetwork(BagOfWords(8, 8, 64), 16, 1, 1, 1, 2, length=24, rows=300)
    ),
    "persons": lambda: IdentityEncoder(ViT(8, 1, 4, width=16, depth=1, heads=2, out_channels=6), 4),
    "swapper": lambda: swapper(optimizer=partial(torch.optim.SGD, lr=0.0)),
}
SIZES = {"photographs": (3, 16, 16), "captioner": (3, 8, 8), "swapper": (3, 16, 16)}
# How much farther losses and gradients may be. The logits of towers are cosines times e^λ = 14. A
# swapper's rectifiers change sides near 0; a gradient is off by the root of their share.
FARTHER = {"towers": (4, 2), "photographs": (4, 2), "swapper": (1, 8)}


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
    x_0 = x_0.sign() if denoiser.process.binary else x_0
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
    return losses.detach(), gradient(denoiser, scale)


def of_system(made, image, dtype, scale=1.0):
    """The same of a `training_step`; a copy, as some remember pictures or means of them."""
    made = copy.deepcopy(made)
    batch = {"image": pictures(*image) * 2 - 1, "identity": 1 - 2 * pictures(*image), **LABELS}
    batch |= {"person": torch.arange(8) % 4, "text": WORDS, "prompt": ["a fox", "a hen"] * 4}
    optimizers = made.configure_optimizers()
    made._trainer = SimpleNamespace(
        global_step=3, world_size=1, accumulate_grad_batches=1, global_rank=0,
        optimizers=optimizers, strategy=SimpleNamespace(all_gather=lambda x, **_: x[None]),
    )  # fmt: skip
    made.optimizers, made.log, made.log_dict = lambda: optimizers, *[lambda *_: None] * 2
    made.manual_backward = lambda loss: (scale * loss).backward()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        output = made.training_step(batch, 0)
    if made.automatic_optimization:
        (scale * output["loss"]).backward()
    assert output["losses"].dtype == output["loss"].dtype == torch.float32
    return output["losses"], gradient(made, scale)


def gradient(module, scale):
    return torch.cat([p.grad.flatten() / scale for p in module.parameters() if p.grad is not None])


def check(run, farther=(1, 1)):
    """float16 has three bits more than bfloat16, and so is nearer."""
    exact, slope = run(torch.float32)
    for dtype, near, steep in ((torch.bfloat16, 0.01, 0.04), (torch.float16, 0.001, 0.006)):
        every = (run(dtype, x) for x in SCALES)
        losses, grad = next(found for found in every if found[1].isfinite().all())
        near, steep = near * farther[0], steep * farther[1]
        typical = exact.abs().mean().item()
        torch.testing.assert_close(losses, exact, rtol=near, atol=near * typical)
        assert (grad - slope).norm() < steep * slope.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(away_from_zero(NETWORKS[name]()), Cosine(1000), V())
    values = denoiser.contract.read(BATCH, train=True)
    check(partial(of_training, denoiser, Simple(), SHAPES.get(name, (1, 8, 8)), values))


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_of_other_processes(name):
    torch.manual_seed(0)
    denoiser, bits = away_from_zero(BOUNDS[name]()), name == "bits"
    objective = VariationalBound(levels=2) if bits else VariationalBound("learned", None)
    check(partial(of_training, denoiser, objective, (1, 8, 8) if bits else (2,), {}))


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems(name):
    torch.manual_seed(0)
    made = away_from_zero(SYSTEMS[name]())
    check(partial(of_system, made, SIZES.get(name, (1, 8, 8))), FARTHER.get(name, (1, 1)))


def texts_of(config):
    """Yields all texts in a nest, but for the keys."""
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from texts_of(value)
    elif isinstance(config, str):
        yield config.rsplit(".", 1)[-1]


def test_whatever_a_configuration_trains_is_here():
    kinds = {kind.__name__: kind for kind in subclasses(nn.Module)}
    models = {p: yaml.safe_load(p.read_text()).get("model") for p in CONFIGS.rglob("*.yaml")}
    named = {name for model in models.values() for name in texts_of(model) if name in kinds}
    rows = [make() for table in (NETWORKS, BOUNDS, SYSTEMS) for make in table.values()]
    here = {type(part).__name__ for row in rows for part in row.modules()}
    wanted = {name for name in named if not issubclass(kinds[name], FIXED)}
    assert {"UNet", "Towers", "ViT", "IdentityTokens", "Swapper", "Learned"} <= wanted
    assert wanted <= here, wanted - here
    for path, model in models.items():
        network = (model or {}).get("init_args", model or {}).get("network") or {}
        name = network if isinstance(network, str) else network.get("class_path")
        assert name is None or name.rsplit(".", 1)[-1] in wanted, path


@pytest.mark.parametrize(
    ("objective", "meaning"),
    [
        (MinSNR(), V()),
        (VLoss(), X0()),
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
    denoiser = NetworkDenoiser(network, Cosine(1000), meaning)
    check(partial(of_training, denoiser, objective, (1, 8, 8), LABELS))


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
