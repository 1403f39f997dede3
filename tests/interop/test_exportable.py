"""Which samplers and which shipped configurations diffusers can express, and that these agree."""

from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from diffusion import guidance, networks, parameterization, process, step
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import Dynamic, Static
from diffusion.interop.diffusers import scheduler, unet_weights
from diffusion.networks import UNet
from diffusion.parameterization import Eps, V
from diffusion.process import Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM

ROOT = Path(__file__).parents[2]
T = 24
WAYS = {"ddim": DDIM(), **{v: DDPM(v) for v in ("small", "large", "learned")}}


class Wave(torch.nn.Module):
    """A deterministic network of ours, with a second output if a variance is learned."""

    def __init__(self, learned):
        super().__init__()
        self.learned = learned

    def forward(self, x_t, t):
        F = torch.sin(2 * x_t + 0.1 * t.reshape(-1, 1, 1, 1))
        return torch.cat([F, torch.cos(3 * x_t)], 1) if self.learned else F


def theirs(config, network, steps, x, generator):
    """What diffusers' pipelines do with a scheduler and a network."""
    ancestral = config["_class_name"] == "DDPMScheduler"
    it = (DDPMScheduler if ancestral else DDIMScheduler).from_config(config)
    it.set_timesteps(steps)
    more = {} if ancestral else {"eta": 0.0, "use_clipped_model_output": True}
    for t in it.timesteps:
        F = network(x, torch.full((len(x),), int(t) + 1))
        x = it.step(F, t, x, generator=generator, **more).prev_sample
    return x


@pytest.mark.parametrize("name", WAYS)
def test_every_sampler_that_is_written_draws_the_same_there(name):
    network, written, refused = Wave(name == "learned"), [], []
    for spacing, steps, of in product(scheduler.GRIDS, (24, 23, 8, 7, 5, 2, 1), (Eps, V)):
        guides = [Dynamic(0.9, 1.5)] if steps == 8 else [Static()] if of is Eps else []
        it, sampler = Linear(T, 1e-3, 0.3), Sampler(WAYS[name], steps, guides, spacing)
        try:
            config = scheduler.scheduler_config(it, of(), sampler, name == "learned")
        except ValueError:
            refused.append((spacing, steps))
            continue
        written.append((spacing, steps))
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(2, 3, 4, 4, generator=generator)
        there = theirs(config, network, steps, x, generator)
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(2, 3, 4, 4, generator=generator)
        noise = lambda x, g=generator: torch.randn(x.shape, generator=g)  # noqa: E731
        here = sampler(NetworkDenoiser(network, it, of()), it, x, None, noise)
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)
    assert {("trailing", 24), ("leading", 8)} < set(written)
    # With 1/3, 1/8 … of the times their last move is from a t where they add noise.
    noisy = name in ("large", "learned")
    assert ("trailing", 8) in (refused if noisy else written)
    assert ("linspace", 7) in (refused if name == "ddim" else written)
    assert ("trailing", 7) in (written if name == "small" else refused)


def test_an_exported_pipeline_draws_pictures_that_are_not_square():
    net = UNet(8, 3, channels=16, multipliers=(1, 2), attention=(4,), blocks=1, groups=4).eval()
    config = unet_weights.unet_config(net, (3, 8, 12))
    assert config["sample_size"] == [8, 12]
    assert (
        unet_weights.unet_config(net, (3, 8, 8))["sample_size"]
        == unet_weights.unet_config(net)["sample_size"]
    )
    there = UNet2DModel.from_config(config)
    there.load_state_dict(unet_weights.exported_weights(net))
    it, sampler = Linear(T, 1e-3, 0.3), Sampler(DDPM("small"), 2, [], "linspace")
    schedule = DDPMScheduler.from_config(scheduler.scheduler_config(it, Eps(), sampler, False))
    pipeline = DDPMPipeline(there, schedule)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(1, torch.Generator().manual_seed(0), 2, output_type="pt").images
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 8, 12, generator=generator)
    noise = lambda x: torch.randn(x.shape, generator=generator)  # noqa: E731
    x_0 = sampler(NetworkDenoiser(net, it, Eps()), it, x, None, noise)
    torch.testing.assert_close(images, (x_0 / 2 + 0.5).clamp(0, 1), rtol=1e-5, atol=1e-5)


READ = {
    "linspace": ({"timestep_spacing": "linspace"}, "timestep_spacing is linspace"),
    "trailing": (
        {"timestep_spacing": "trailing", "num_train_timesteps": 120},
        "timestep_spacing is trailing; expected leading, or trailing where 50 divides T = 120",
    ),
    "threshold": ({"thresholding": True, "sample_max_value": 0.5}, "sample_max_value is 0.5"),
}


@pytest.mark.parametrize("name", READ)
def test_a_sampler_that_ours_would_not_follow_is_refused(name):
    config, message = READ[name]
    with pytest.raises(
        ValueError, match=rf"scheduler_config\.json: {message}.*; expected|{message}"
    ):
        scheduler.sampling_settings({"_class_name": "DDIMScheduler", **config})


def made(node, module):
    """An object of a configuration's node."""
    node = {"class_path": node} if isinstance(node, str) else node
    given = node.get("init_args", {}).items()
    given = {k: made(v, module) if k == "process" else v for k, v in given}
    return getattr(module, node["class_path"].rsplit(".", 1)[-1])(**given)


def reason(path, overlay=None, groups=None):
    """Why a configuration's model cannot be exported, None if it can."""
    model = yaml.safe_load(path.read_text())["model"]
    init = model.get("init_args", model)
    if "sampler" not in init:
        return "it is no diffusion model"
    more = ("streams", "augmentation", "controls", "text", "identity")
    if any(key in init["network"]["init_args"] for key in more):
        return "network: it reads more than a label"
    if groups:
        init["network"]["init_args"]["groups"] = groups
    with torch.device("meta"):
        net = made(init["network"], networks)
    said = {**init["sampler"], **(overlay or {})}
    guides = [made(node, guidance) for node in said.pop("guidance", ())]
    sampler = Sampler(made(said.pop("step"), step), guidance=guides, **said)
    it, of = made(init["process"], process), made(init["parameterization"], parameterization)
    try:
        unet_weights.unet_config(net)
        scheduler.scheduler_config(it, of, sampler, net.out_channels == 2 * net.in_channels)
    except ValueError as error:
        return str(error)
    return None


def test_the_demos_model_can_be_exported_with_groups_of_one_number():
    why = reason(ROOT / "configs/quickstart.yaml", {"step": "DDIM", "guidance": ["Static"]}, 8)
    assert why is None


CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.yaml") if "cascade" not in p.stem)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_documentation_says_which_configurations_can_be_exported(path):
    table = (ROOT / "docs/interop.md").read_text().split("## Which configurations")[1]
    (row,) = [
        line for line in table.splitlines() if line.startswith("|") and f"`{path.stem}`" in line
    ]
    why = reason(path)
    answer = row.split("|")[2].strip()
    assert answer.startswith("yes" if why is None else "no"), (row, why)
    if why is not None and ":" in why:
        assert why.split(":")[0].split(".")[-1] in row, (row, why)


def test_a_network_that_reads_texts_is_refused():
    net = UNet(8, 3, channels=16, multipliers=(1,), attention=(), blocks=1, groups=4)
    net.streams = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"network\.streams: it reads texts; expected none"):
        unet_weights.unet_config(net)
