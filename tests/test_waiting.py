"""Neither a training step nor the sampling loop waits for an accelerator.

The meta device stands for it, see helpers/waiting.py.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from captioned import Bag, Numbers
from exact import Wavy
from waiting import Waits, no_waiting

from diffusion.callbacks.monitor import Monitor
from diffusion.codec import Pixels
from diffusion.common.muon import MuonWithAdamW
from diffusion.condition import Condition, Forget
from diffusion.denoiser import FrozenDenoiser, NetworkDenoiser
from diffusion.guidance import (
    ClassifierFree,
    ControlStrength,
    Denoise,
    Dynamic,
    Inpaint,
    Product,
    Static,
)
from diffusion.networks import (
    Augmentation,
    Blur,
    ClassifierNetwork,
    ControlNet,
    Hint,
    Inpainter,
    Locked,
    Stream,
    Towers,
    UNet,
    Upsampler,
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
)
from diffusion.parameterization import V
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM, DDPM, DPMSolver, Heun, RePaint, UniPC
from diffusion.systems.averages import EMA
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.noisy_classifier import NoisyClassifier

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1,), "attention": (8,), "blocks": 1}
SMALL |= {"groups": 4, "in_channels": 1}


def read():
    return {"text": Stream(Numbers(4)), "tags": Stream(Bag(8), route="cross")}


def controlled():
    base = UNet(**SMALL, num_classes=3)
    return ControlNet(Locked(base), {"edges": Hint(1, [4])})


NETWORKS = {
    "labels": lambda: UNet(**SMALL, num_classes=3, dropout=0.1),
    "texts": lambda: UNet(**SMALL, streams=read(), checkpointing=True),
    "variance": lambda: UNet(**SMALL, out_channels=2, num_classes=3),
    "upsampler": lambda: Upsampler(Augmentation(Cosine(20), 10, 4), Blur(), **SMALL),
    "inpainter": lambda: Inpainter(**SMALL),
    "controls": controlled,
}
OBJECTIVES = [Simple(), MinSNR(), VariationalBound(), LogitNormal(Simple())]
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
    made.spec = DataSpec("Small", (1, 8, 8), 3)
    return trained(made)


def batch(n=3):
    shapes = {"image": (1, 8, 8), "edges": (1, 8, 8), "known": (1, 8, 8), "mask": (1, 8, 8)}
    made = {k: torch.zeros(n, *v, device="meta") for k, v in shapes.items()}
    made["low_res"] = torch.zeros(n, 1, 4, 4, device="meta")
    made["label"] = torch.zeros(n, dtype=torch.long, device="meta")
    return made | {"text": ["1 2 3 4"] * n, "tags": ["a red fox"] * n}


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


def train(made):
    output = made.training_step(batch(), 0)
    output["loss"].backward()
    parameters = [p for p in made.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return output


@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_of_every_network(name):
    made = module(name, p_uncond=0.2 if name in ("labels", "texts") else 0.0)
    made.train()
    made.training_step(batch(), 0)  # tables are copied to the device once
    with no_waiting():
        train(made)


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


def test_training_steps_of_what_guides(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # not on meta
    tower = {"image_size": 8, "in_channels": 1, "channels": 8, "groups": 4, "head_width": 4}
    tower |= {"multipliers": (1,), "attention": (), "blocks": 1}
    classifier = ClassifierNetwork(num_classes=3, **tower)
    towers = Towers(ClassifierNetwork(num_classes=12, **tower), Bag())
    for made in (NoisyClassifier(classifier, Cosine(20)), Contrastive(towers, Cosine(20))):
        trained(made).training_step(batch(), 0)
        with no_waiting():
            train(made)


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
    made.generate(batch(n), range(n))
    with no_waiting():
        assert made.generate(batch(n), range(n)).is_meta


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
def test_every_step(step):
    denoiser = NetworkDenoiser(Wavy(), Cosine(20), V()).to("meta")
    cond = Condition({"label": torch.zeros(3, dtype=torch.long, device="meta")}, {"label": 1})
    x_T = torch.zeros(3, 1, 4, device="meta")
    sampler = Sampler(step, 4, [ClassifierFree(2.0, interval=(5, 15)), Static()])
    with no_waiting():
        assert sampler(denoiser, denoiser.process, x_T, cond).is_meta


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        ("texts", [ClassifierFree(3.0, ["text"], (5, 15), 0.7), Dynamic()]),
        ("labels", [ClassifierFree(0.0)]),
        ("labels", [Inpaint()]),
        ("labels", [Denoise(0.5)]),
        ("labels", [Product(0.5)]),
        ("controls", [ControlStrength("edges", 0.5, (5, 15), guess=True), ClassifierFree(2.0)]),
        pytest.param("upsampler", [], marks=pytest.mark.slow),
        pytest.param("inpainter", [], marks=pytest.mark.slow),
    ],
)
def test_every_guidance(name, guidance):
    draw(module(name, guidance=guidance, step=DDPM()))
