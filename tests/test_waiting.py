"""Neither a training step nor the sampling loop waits for an accelerator.

The meta device stands for it, see helpers/waiting.py.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from captioned import Bag, Numbers, SmallClipImage, SmallClipText, SmallIdentity
from exact import Wavy
from swapping import swapper
from waiting import Waits, no_waiting

from diffusion.callbacks.monitor import Monitor
from diffusion.codec import Pixels
from diffusion.common.muon import MuonWithAdamW
from diffusion.condition import Condition, Forget
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser
from diffusion.guidance import (
    Autoguidance,
    BitProduct,
    Classifier,
    ClassifierFree,
    ClassifierMean,
    Clip,
    ControlStrength,
    Denoise,
    Dynamic,
    ImageStrength,
    Inpaint,
    Product,
    Static,
)
from diffusion.networks import (
    Augmentation,
    Blur,
    CaptionNetwork,
    ClassifierNetwork,
    ControlNet,
    CountedColours,
    DiT,
    EmbeddingPrior,
    Hint,
    IdentityTokens,
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
from diffusion.objective import (
    Distilled,
    Hybrid,
    ImportanceSampled,
    LogitNormal,
    MinSNR,
    Simple,
    Teacher,
    VariationalBound,
    VLoss,
)
from diffusion.parameterization import LogOdds, V
from diffusion.process import Binomial, Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM, DDPM, Bernoulli, DPMSolver, Heun, RePaint, UniPC
from diffusion.systems.averages import EMA
from diffusion.systems.captioning.captioner import Captioner
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Frozen, FrozenClip
from diffusion.systems.identity.identity_encoder import IdentityEncoder
from diffusion.systems.noisy_classifier import NoisyClassifier

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1,), "attention": (8,), "blocks": 1}
SMALL |= {"groups": 4, "in_channels": 1}
TOWER = SMALL | {"attention": (), "head_width": 4}
SPEC = DataSpec("Small", (1, 8, 8), 3, captioned=True)


def read():
    return {"text": Stream(Numbers(4)), "tags": Stream(Bag(8), route="cross")}


def controlled():
    base = UNet(**SMALL, num_classes=3)
    return ControlNet(Locked(base), {"edges": Hint(1, [4])})


def base():
    return Locked(UNet(**SMALL, streams={"text": Stream(Numbers(4))}))


def adapter():
    return IPAdapter(base(), IdentityTokens(SmallIdentity(channels=1), 2, 4))


def instant_id():
    identity = ResampledIdentity(SmallIdentity(channels=1), 2, 4, depth=1, heads=2, hidden=4)
    return InstantID(base(), identity, Hint(1, [4]))


NETWORKS = {
    "labels": lambda: UNet(**SMALL, num_classes=3, dropout=0.1),
    "texts": lambda: UNet(**SMALL, streams=read(), checkpointing=True),
    "variance": lambda: UNet(**SMALL, out_channels=2, num_classes=3),
    "upsampler": lambda: Upsampler(Augmentation(Cosine(20), 10, 4), Blur(), **SMALL),
    "inpainter": lambda: Inpainter(**SMALL),
    "controls": controlled,
    "adapter": adapter,
    "instant_id": instant_id,
    "transformer": lambda: DiT(8, 1, patch=4, width=16, depth=1, heads=2, num_classes=3),
    "linear attention": lambda: LinearUNet(
        1, None, 8, None, (1, 2), heads=(2, 2), head_widths=(4, 4), full=(False, True)
    ),
    "prior": lambda: EmbeddingPrior(6, TextTransformer(8, 1, 2, 6, 32), 8, 1, 2),
}
SHAPES = {"prior": (6,)}
FORGET = {
    "labels": 0.2,
    "texts": 0.2,
    "transformer": 0.2,
    "prior": 0.2,
    "instant_id": [Forget(["text"], 1.0), Forget(["identity"], 0.1)],
}
OBJECTIVES = [Simple(), MinSNR(), VLoss(), VariationalBound(), LogitNormal(Simple())]
OBJECTIVES += [ImportanceSampled(VariationalBound())]
STEPS = [DDIM(), DDIM(0.5), DDPM("large"), DPMSolver(), DPMSolver(2, 1.0), UniPC(), UniPC(3)]
STEPS += [Heun(), RePaint(DDPM(), 2)]


def trained(made):
    """Puts a module on the device, with as much of a trainer as its step reads."""
    made.to("meta")._trainer = SimpleNamespace(
        global_step=3, world_size=1, accumulate_grad_batches=1, global_rank=0,
        strategy=SimpleNamespace(all_gather=lambda x, **_: x[None]),
    )  # fmt: skip
    return made


def module(name, objective=None, guidance=(), step=None, p_uncond=0.0):
    made = Diffusion(
        NETWORKS[name](), Cosine(20), V(), objective or Simple(),
        Sampler(step or DDIM(), 3, guidance), p_uncond, codec=Pixels(),
    )  # fmt: skip
    made.spec = DataSpec("Small", SHAPES.get(name, (1, 8, 8)), 3)
    return trained(made)


def batch(n=3, image=(1, 8, 8)):
    shapes = dict.fromkeys(("edges", "known", "mask", "identity", "pose"), (1, 8, 8))
    shapes |= {"image": image, "low_res": (1, 4, 4)}
    made = {k: torch.zeros(n, *v, device="meta") for k, v in shapes.items()}
    made |= {k: torch.zeros(n, dtype=torch.long, device="meta") for k in ("label", "person")}
    texts = {"text": "1 2 3 4", "tags": "a red fox", "prompt": "a red fox"}
    return made | {k: [text] * n for k, text in texts.items()}


@pytest.fixture
def no_autocast(monkeypatch):
    """The meta device has none, and answers as the CPU does."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    for name in ("get_autocast_dtype", "is_autocast_enabled"):
        known = partial(
            lambda ask, kind: ask("cpu" if kind == "meta" else kind), getattr(torch, name)
        )
        monkeypatch.setattr(torch, name, known)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[x.argmax()],
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0])],
        lambda x: x + torch.ones(3),
        lambda x: torch.tensor(3, device="meta"),
        lambda x: torch.ones(3).to("meta"),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
    ],
)
def test_the_mode_finds_what_waits(wait):
    with no_waiting(), pytest.raises((Waits, RuntimeError, NotImplementedError)):
        wait(torch.zeros(3, device="meta"))


def train(made, **of):
    output = made.training_step(batch(**of), 0)
    output["loss"].backward()
    parameters = [p for p in made.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return output


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_of_every_network(name):
    made, image = module(name, p_uncond=FORGET.get(name, 0.0)), SHAPES.get(name, (1, 8, 8))
    made.train()
    made.training_step(batch(image=image), 0)  # tables are copied to the device once
    with no_waiting():
        train(made, image=image)


@pytest.mark.parametrize("objective", [*OBJECTIVES, Hybrid()], ids=lambda o: type(o).__name__)
def test_training_steps_of_every_objective(objective):
    made = module("variance", objective, p_uncond=[Forget(["label"], 0.5, exclusive=True)])
    if not isinstance(objective, Hybrid):
        made.denoiser.network = UNet(**SMALL, num_classes=3).to("meta")
    made.training_step(batch(), 0)  # tables are copied to the device once
    with no_waiting():
        train(made)


class Taught(Teacher):
    def read(self):
        return FrozenDenoiser(module("labels").denoiser, DataSpec("Small", (1, 8, 8), 3))


def test_a_step_of_distillation():
    made = module("labels", Distilled(Taught(), 2, 2, [ClassifierFree(2.0), Static()]))
    made.training_step(batch(), 0)
    with no_waiting():
        train(made)


def captioner():
    image = CountedColours(ViT(8, 1, 4, width=8, depth=1, heads=2, out_channels=6), units=4)
    made = CaptionNetwork(image, 8, 1, 1, 2, length=16, rows=300, dropout=0.1, unread=0.1)
    made.vocabulary.learn(["a red fox"])
    return Captioner(made, crop=1)


SYSTEMS = {
    "classifier": lambda: NoisyClassifier(
        ClassifierNetwork(num_classes=3, **TOWER), Cosine(20), crop=1
    ),
    "towers": lambda: Contrastive(
        Towers(ClassifierNetwork(num_classes=12, **TOWER), Bag()), Cosine(20), clean=0.5
    ),
    "captioner": captioner,
    "prompts": lambda: PromptUpsampler(
        PromptNetwork(Bag(8), 8, 1, 1, 1, 2, length=16, rows=300), renamed=0.5
    ),
    "persons": lambda: IdentityEncoder(ClassifierNetwork(num_classes=6, **TOWER), 4, crop=1),
}


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize("name", SYSTEMS)
def test_training_steps_of_every_system(name):
    made = trained(SYSTEMS[name]())
    made.training_step(batch(), 0)
    with no_waiting():
        train(made)


@pytest.mark.usefixtures("no_autocast", "lite0")
def test_both_steps_of_a_swapper():
    made, pictures = trained(swapper()), batch(image=(3, 16, 16))
    pictures["identity"] = pictures["image"]
    made.trainer.optimizers = made.configure_optimizers()
    made.optimizers = lambda: made.trainer.optimizers
    made.manual_backward = lambda loss: loss.backward()
    made.log = made.log_dict = lambda *_: None
    made.training_step(pictures, 0)
    for made.trainer.global_step, same in ((3, True), (4, False)):
        assert made.is_same(made.trainer.global_step) == same
        with no_waiting():
            made.training_step(pictures, 0)


@pytest.mark.usefixtures("no_autocast", "lite0")
def test_what_looks_pictures_up_waits_and_so_does_a_frozen_tower_of_texts():
    """The processor reads a picture's bytes, and what `TextEncoder.read` returns is on the CPU."""
    tower, codec, text = (x.to("meta") for x in (PhotoTower(8), SmallClipImage(), SmallClipText()))
    x, t = torch.zeros(2, 3, 8, 8, device="meta"), torch.zeros(2, device="meta")
    waits = lambda: tower.train()(x, t), lambda: codec.encode(x), lambda: text.read(["a fox"])
    tower.eval()(x, t)  # loads what is frozen
    with no_waiting():
        tower(x, t)
        for wait in waits:
            with pytest.raises(Waits, match=r"copy between devices"):
                wait()


def test_bits():
    made = Diffusion(
        PixelMLP((1, 8, 8), 8, 1), Binomial(20), LogOdds(), VariationalBound(levels=2),
        Sampler(Bernoulli(), 3, [BitProduct(0.1), Inpaint()]), codec=Pixels(),
    )  # fmt: skip
    made.spec = DataSpec("Bits", (1, 8, 8), levels=2)
    trained(made).training_step(batch(), 0)
    with no_waiting():
        train(made)
    draw(made)


def test_what_follows_a_step():
    made, monitor, ema = module("labels"), Monitor(), EMA(0.9)
    trainer = SimpleNamespace(
        global_step=3, world_size=1, datamodule=None, log_every_n_steps=100, callbacks=[],
        optimizers=[MuonWithAdamW(made.parameters(), lr=0.1)],
    )  # fmt: skip
    monitor.on_train_start(trainer, made)
    ema.on_train_start(trainer, made)
    made.training_step(batch(), 0)
    with no_waiting():
        output = train(made)
        monitor.on_before_optimizer_step(trainer, made, trainer.optimizers[0])
        trainer.optimizers[0].step()
        monitor.on_train_batch_end(trainer, made, output, batch(), 0)
        ema.on_train_batch_end(trainer, made, output, batch(), 0)


def draw(made, n=3):
    made._trainer = None
    asked = batch(n, made.diffused)
    made.generate(asked, range(n))
    with no_waiting():
        assert made.generate(asked, range(n)).is_meta


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
def test_every_step(step):
    denoiser = NetworkDenoiser(Wavy(), Cosine(20), V()).to("meta")
    cond = Condition({"label": torch.zeros(3, dtype=torch.long, device="meta")}, {"label": 1})
    x_T = torch.zeros(3, 1, 4, device="meta")
    sampler = Sampler(step, 4, [ClassifierFree(2.0, interval=(5, 15)), Static()])
    with no_waiting():
        assert sampler(denoiser, denoiser.process, x_T, cond).is_meta


def classifier():
    return Frozen(ClassifierNetwork(num_classes=3, **TOWER), Cosine(20), SPEC)


def clip():
    """It has read what is asked for: texts are read before the first step."""
    towers = Towers(ClassifierNetwork(num_classes=12, **TOWER), Bag())
    made = FrozenClip(towers, Cosine(20), SPEC, clean=True)
    made.embed_text(batch()["text"])
    return made


def bad():
    return FrozenDenoiser(module("labels").denoiser, SPEC)


GUIDES = {
    "text": ("texts", lambda: [ClassifierFree(3.0, ["text"], (5, 15), 0.7), Dynamic()]),
    "unconditional": ("labels", lambda: [ClassifierFree(0.0)]),
    "inpaint": ("labels", lambda: [Inpaint()]),
    "denoise": ("labels", lambda: [Denoise(0.5)]),
    "product": ("labels", lambda: [Product(0.5)]),
    "classifier": ("labels", lambda: [Static(), Classifier(2.0, classifier(), (5, 15))]),
    "classifier's mean": ("labels", lambda: [Static(), ClassifierMean(2.0, classifier())]),
    "clip of x_t": ("labels", lambda: [Clip(2.0, clip(), shifts=2, interval=(5, 15))]),
    "clip of x_0": ("labels", lambda: [Clip(2.0, clip(), "x_0")]),
    "clip through": ("labels", lambda: [Clip(2.0, clip(), "x_0", through=True)]),
    "bad model": ("labels", lambda: [Autoguidance(2.0, bad(), (5, 15)), ClassifierFree(2.0)]),
    "control": (
        "controls",
        lambda: [ControlStrength("edges", 0.5, (5, 15), guess=True), ClassifierFree(2.0)],
    ),
    "picture": (
        "adapter",
        lambda: [ClassifierFree(2.0), ImageStrength(scale=0.8, interval=(5, 15))],
    ),
    "embedding": ("prior", lambda: [ClassifierFree(2.0)]),
    "picture and control": (
        "instant_id",
        lambda: [ClassifierFree(2.0), ImageStrength(), ControlStrength("pose", 0.8)],
    ),
    "upsampler": ("upsampler", list),
    "inpainter": ("inpainter", list),
}
SLOW = ("picture and control", "upsampler", "inpainter")


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize(
    "of", [pytest.param(of, marks=[pytest.mark.slow] * (of in SLOW)) for of in GUIDES]
)
def test_every_guidance(of):
    name, guidance = GUIDES[of]
    draw(module(name, guidance=guidance(), step=DDPM()))
