"""Published code and ours: the same outputs and the same samples with the same weights and noise.

published.npz and published.json hold what the published code itself gave; make_published.py says
how.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import Noise, numbers, weights

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import Classifier, ClassifierMean, NoiseAware, Static
from diffusion.interop import layout, lucidrains, openai
from diffusion.interop.presets import PRESETS
from diffusion.networks import ClassifierNetwork, LinearUNet, UNet, Upsampler
from diffusion.parameterization import X0, Eps, V
from diffusion.process import Cosine, Linear, Sigmoid
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM, DDPM

SMALL = {"image_size": 8, "channels": 64, "multipliers": (1, 2), "attention": (4,), "blocks": 1}
OPENAI = {**SMALL, "family": "openai", "out_channels": 6, "scale_shift": True}
ADM = {**OPENAI, "resample": "block", "head_width": 32, "num_classes": 10, "null_class": False}
ADM |= {"qkv_order": "heads-qkv"}
OLD = {**OPENAI, "heads": 4, "qkv_order": "heads-qkv"}
NETWORKS = {
    "adm": (UNet, ADM),
    "adm_new_order": (UNet, {**ADM, "qkv_order": "qkv-heads"}),
    "upsampler": (Upsampler, ADM),
    "iddpm": (UNet, {**OLD, "time_scale": 0.25}),
    "iddpm_plain": (UNet, {**OLD, "scale_shift": False, "heads": 1}),
    "iddpm_upsampler": (Upsampler, OLD),
    "classifier": (ClassifierNetwork, {**SMALL, "num_classes": 10, "head_width": 32}),
    "lucidrains": (
        LinearUNet,
        {
            "channels": 16,
            "multipliers": (1, 2, 4),
            "heads": (4, 4, 4),
            "head_widths": (32, 32, 32),
            "full": (False, False, True),
        },
    ),
    "lucidrains_other": (
        LinearUNet,
        {
            "channels": 16,
            "first": 8,
            "multipliers": (1, 2),
            "heads": (2, 4),
            "head_widths": (8, 16),
            "full": (True, False),
        },
    ),
}


def expected(name):
    with np.load(Path(__file__).with_name("published.npz")) as outputs:
        return torch.from_numpy(outputs[name])


def network(name):
    """Our network with the weights that the published one had."""
    kind, settings = NETWORKS[name]
    made = kind(**settings)
    names = (lucidrains if kind is LinearUNet else openai).names(made)
    given = weights(layout.shapes(made, names))
    made.load_state_dict(layout.imported_weights(made, names, given))
    return made.eval()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_networks_output_is_the_published_one(name):
    made = network(name)
    size = 16 if "lucidrains" in name else 8
    known = {"label": torch.tensor([3, 9]), "low_res": numbers(2, 2, 3, 4, 4)}
    conditions = {k: v for k, v in known.items() if k in made.conditions}
    output = made(numbers(1, 2, 3, size, size), torch.tensor([1, 701]), **conditions)
    torch.testing.assert_close(output, expected(name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", pytest.param("cosine", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("run", "sampler"),
    [
        ("ddim50", Sampler(DDIM(), 50, [Static()], "leading")),
        ("ddpm250", Sampler(DDPM("learned"), 250, [Static()], "linspace")),
    ],
)
def test_a_run_ends_where_openais_ends(run, sampler, schedule):
    process = Linear() if schedule == "linear" else Cosine()
    made = network("adm" if schedule == "linear" else "adm_new_order")
    denoiser = NetworkDenoiser(made, process, Eps())
    x_T, cond = numbers(1, 2, 3, 8, 8), Condition({"label": torch.tensor([3, 9])})
    x_0 = sampler(denoiser, process, x_T, cond, Noise())
    torch.testing.assert_close(x_0, expected(f"{run}_{schedule}"), rtol=1e-4, atol=1e-4)


class Judge(NoiseAware):
    def __init__(self, *args):
        super().__init__(*args)
        self.network = network("classifier")

    def log_prob(self, x_t, t, cond):
        t = torch.full(x_t.shape[:1], int(t))
        return self.network(x_t, t).log_softmax(1)[range(len(x_t)), cond.values["label"]]


def test_a_guided_run_ends_where_openais_ends():
    process = Linear()
    guidance = [Static(), Classifier(0.5, Judge(process, DataSpec(None, (3, 8, 8), 10)))]
    denoiser = NetworkDenoiser(network("adm"), process, Eps())
    cond = Condition({"label": torch.tensor([3, 9])})
    sampler = Sampler(DDIM(), 50, guidance, "leading")
    x_0 = sampler(denoiser, process, numbers(1, 2, 3, 8, 8), cond, Noise())
    torch.testing.assert_close(x_0, expected("ddim50_guided"), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", pytest.param("cosine", marks=pytest.mark.slow)])
def test_an_ancestral_run_is_guided_as_openais(schedule):
    process = Linear() if schedule == "linear" else Cosine()
    guidance = [Static(), ClassifierMean(0.5, Judge(process, DataSpec(None, (3, 8, 8), 10)))]
    made = network("adm" if schedule == "linear" else "adm_new_order")
    cond = Condition({"label": torch.tensor([3, 9])})
    sampler = Sampler(DDPM("learned"), 250, guidance, "linspace")
    x_T, denoiser = numbers(1, 2, 3, 8, 8), NetworkDenoiser(made, process, Eps())
    x_0 = sampler(denoiser, process, x_T, cond, Noise())
    wanted = expected(f"ddpm250_guided_{schedule}")
    assert (wanted - expected(f"ddpm250_{schedule}")).abs().max() > 0.01
    torch.testing.assert_close(x_0, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("objective", "steps"), [("pred_v", None), ("pred_v", 50), ("pred_noise", 50), ("pred_x0", 50)]
)
def test_a_run_ends_where_lucidrains_ends(objective, steps):
    parameterization = {"pred_v": V(), "pred_noise": Eps(), "pred_x0": X0()}[objective]
    process = Sigmoid(200)
    denoiser = NetworkDenoiser(network("lucidrains"), process, parameterization)
    step = DDPM("small") if steps is None else DDIM()
    sampler = Sampler(step, steps, [Static()], "trailing")
    x_0 = sampler(denoiser, process, numbers(1, 2, 3, 16, 16), None, Noise())
    wanted = expected(f"lucidrains_{objective}_{steps or 'all'}")
    torch.testing.assert_close(x_0, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_a_network_of_full_size_gives_what_the_published_one_gives(name):
    made = PRESETS[name].network("meta")
    names = openai.names(made)
    given = weights(layout.shapes(made, names))
    made.load_state_dict(layout.imported_weights(made, names, given), assign=True)
    size = made.image_size
    known = {"label": torch.tensor([9]), "low_res": numbers(2, 1, 3, size // 4, size // 4)}
    conditions = {k: v for k, v in known.items() if k in made.conditions}
    output = made.eval()(numbers(1, 1, 3, size, size), torch.tensor([701]), **conditions)
    if output.ndim == 4:
        output = output[:, :, ::8, ::8]
    torch.testing.assert_close(output, expected(name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_names_and_shapes_of_the_published_network(name):
    made = PRESETS[name].network("meta")
    shapes = layout.shapes(made, openai.names(made))
    lines = "\n".join(sorted(f"{k} {v}" for k, v in shapes.items()))
    digests = json.loads(Path(__file__).with_name("published.json").read_text())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digests[name]
