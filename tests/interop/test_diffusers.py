"""A folder written here is sampled by diffusers as by us, and read back as it was."""

import json

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from seeded import weights as seeded

from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import ClassifierFree, Dynamic, Static
from diffusion.interop import layout
from diffusion.interop.betas import betas, named_process
from diffusion.interop.diffusers import folder, scheduler, unet_weights
from diffusion.networks import MLP, UNet, Upsampler
from diffusion.parameterization import X0, Eps, Mean, V, Velocity
from diffusion.process import (
    Cosine,
    Linear,
    RectifiedFlow,
    ScaledLinear,
    Sigmoid,
    Sohl2015,
    ZeroTerminal,
)
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, Heun

SMALL = {"image_size": 8, "channels": 16, "multipliers": (1, 2), "attention": (4,), "blocks": 1}
SMALL |= {"groups": 4}


def network(**changes):
    made = UNet(**{**SMALL, **changes})
    shapes = {k: v.shape for k, v in made.state_dict().items()}
    made.load_state_dict(seeded(shapes))
    return made.eval()


def exported(at, net, process, parameterization, sampler):
    unet = unet_weights.unet_config(net)
    variance = net.out_channels == 2 * net.in_channels
    schedule = scheduler.scheduler_config(process, parameterization, sampler, variance)
    folder.write_folder(at, unet, unet_weights.exported_weights(net), schedule, "card")
    return at


RUNS = {
    "ddim": (Linear(), Eps(), Sampler(DDIM(), 50, [Static()], "trailing"), {}),
    "ddim_leading": (Linear(), Eps(), Sampler(DDIM(), 30, [Static()], "leading"), {}),
    "ddim_v_openai": (Cosine(), V(), Sampler(DDIM(), 20, [Static()]), {"family": "openai"}),
    "ddim_x0_free": (Sigmoid(), X0(), Sampler(DDIM(), 50), {}),
    "ddim_dynamic": (Linear(), Eps(), Sampler(DDIM(), 25, [Dynamic(0.9)]), {}),
    "ddim_zero": (ZeroTerminal(ScaledLinear()), V(), Sampler(DDIM(), 20, [Static()]), {}),
    "ddpm_small": (Linear(), Eps(), Sampler(DDPM("small"), 50, [Static()], "linspace"), {}),
    "ddpm_large": (Sohl2015(), V(), Sampler(DDPM("large"), 100, [Static()], "leading"), {}),
    "ddpm_learned": (
        Linear(),
        Eps(),
        Sampler(DDPM("learned"), 250, [Static()], "linspace"),
        {"out_channels": 6, "family": "openai", "scale_shift": True, "resample": "block"},
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=pytest.mark.slow) if k == "ddpm_learned" else k for k in RUNS]
)
def test_a_pipeline_draws_what_our_sampler_draws(name, tmp_path):
    process, parameterization, sampler, changes = RUNS[name]
    net = network(**changes)
    at = exported(tmp_path / "out", net, process, parameterization, sampler)
    ancestral = isinstance(sampler.step, DDPM)
    pipeline = (DDPMPipeline if ancestral else DDIMPipeline).from_pretrained(at)
    pipeline.set_progress_bar_config(disable=True)
    options = {} if ancestral else {"eta": 0.0, "use_clipped_model_output": True}
    images = pipeline(
        2,
        torch.Generator().manual_seed(3),
        num_inference_steps=sampler.steps,
        output_type="pt",
        **options,
    ).images
    generator = torch.Generator().manual_seed(3)
    x_T = torch.randn(2, 3, 8, 8, generator=generator)
    noise = lambda x: torch.randn(x.shape, generator=generator)  # noqa: E731
    x_0 = sampler(NetworkDenoiser(net, process, parameterization), process, x_T, None, noise)
    assert x_0.std() > 0.1
    torch.testing.assert_close(images, (x_0 / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_a_folder_is_read_as_what_was_written(name, tmp_path):
    process, parameterization, sampler, changes = RUNS[name]
    net = network(**changes)
    at = exported(tmp_path / "out", net, process, parameterization, sampler)
    model, values = folder.read_folder(at)
    again = model.network()
    again.load_state_dict(layout.imported_weights(again, unet_weights.names(again), values))
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert model.settings["parameterization"] == type(parameterization).__name__
    said = model.settings["process"]
    assert said["class_path"] in (type(process).__name__, "Betas")
    assert model.settings["sampler"]["spacing"] == sampler.spacing
    guidance = model.settings["sampler"]["guidance"]
    assert len(guidance) == len(sampler.guidance)


@pytest.mark.parametrize(
    "process",
    [Linear(), ScaledLinear(500), Cosine(300), Sigmoid(200)],
    ids=lambda p: type(p).__name__,
)
def test_a_process_is_known_by_its_betas(process):
    found = named_process(betas(process).float().double())
    assert found["class_path"] == type(process).__name__
    assert found["init_args"]["T"] == process.T


def test_betas_give_any_other_process_back():
    found = named_process(betas(Sohl2015(50)))
    assert found["class_path"] == "Betas"
    torch.testing.assert_close(
        torch.tensor(found["init_args"]["betas"]).double(), betas(Sohl2015(50))
    )


SCHEDULERS = [
    DDPMScheduler(variance_type="fixed_large", timestep_spacing="linspace"),
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing"),
    DDIMScheduler(thresholding=True, sample_max_value=3.0),
]


@pytest.mark.parametrize("theirs", SCHEDULERS)
def test_a_scheduler_is_read(theirs):
    config = {**theirs.config, "_class_name": type(theirs).__name__}
    found = scheduler.sampling_settings(config)
    kind = found["process"]["class_path"]
    made = {"Linear": Linear, "Cosine": Cosine, "ScaledLinear": ScaledLinear}[kind]
    bar = made(**found["process"]["init_args"]).alpha[1:] ** 2
    torch.testing.assert_close(bar.float(), theirs.alphas_cumprod, rtol=2e-4, atol=1e-6)
    theirs.set_timesteps(50)
    grid = scheduler.scheduler_times(found["sampler"]["spacing"], 1000, 50)
    assert (grid - 1).tolist() == theirs.timesteps.tolist()


REFUSED = {
    "process": (network(), RectifiedFlow(), X0(), Sampler(DDIM())),
    "parameterization: Velocity": (network(), Linear(), Velocity(), Sampler(DDIM())),
    "parameterization: Mean": (network(), Linear(), Mean(), Sampler(DDIM())),
    "sampler.step: Heun": (network(), Linear(), Eps(), Sampler(Heun())),
    "sampler.step: DDIM; expected DDPM": (
        network(out_channels=6),
        Linear(),
        Eps(),
        Sampler(DDIM()),
    ),
    "sampler.step.variance": (network(out_channels=6), Linear(), Eps(), Sampler(DDPM("large"))),
    "sampler.guidance: ClassifierFree": (
        network(),
        Linear(),
        Eps(),
        Sampler(DDIM(), guidance=[ClassifierFree(2.0)]),
    ),
    "sampler.spacing: karras": (network(), Linear(), Eps(), Sampler(DDIM(), 9, spacing="karras")),
    "DDIMScheduler goes by": (network(), Linear(), Eps(), Sampler(DDIM(), 50, spacing="linspace")),
    "sampler.steps: 48": (network(), Linear(), Eps(), Sampler(DDPM(), 48, spacing="trailing")),
    "network.patch": (network(patch=2, attention=(2,)), Linear(), Eps(), Sampler(DDIM())),
    "network.blocks": (network(blocks=[1, 2]), Linear(), Eps(), Sampler(DDIM())),
    "network.resample_first, skip_scale": (
        network(skip_scale=0.5),
        Linear(),
        Eps(),
        Sampler(DDIM()),
    ),
    "network.time_scale": (network(time_scale=0.25), Linear(), Eps(), Sampler(DDIM())),
    "network.multipliers": (network(multipliers=(0.5, 1)), Linear(), Eps(), Sampler(DDIM())),
    "network.heads": (network(attention=(8, 4), heads=2), Linear(), Eps(), Sampler(DDIM())),
    "groups": (network(groups=32), Linear(), Eps(), Sampler(DDIM())),
    "network: Upsampler": (Upsampler(**SMALL), Linear(), Eps(), Sampler(DDIM())),
    "network: MLP": (MLP(), Linear(), Eps(), Sampler(DDIM())),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_diffusers_cannot_express_is_refused_with_the_reason(reason, tmp_path):
    net, process, parameterization, sampler = REFUSED[reason]
    with pytest.raises(ValueError, match="expected") as error:
        exported(tmp_path / "out", net, process, parameterization, sampler)
    assert not list(tmp_path.iterdir())
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_that_is_there_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    run = RUNS["ddim"]
    with pytest.raises(FileExistsError, match="expected the name of a new folder"):
        exported(tmp_path / "out", network(), *run[:3])
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.fixture
def published(tmp_path):
    """A folder as of google/ddpm-cifar10-32, small: all in one place, and old names."""
    theirs = UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=4,
        downsample_padding=0,
        attention_head_dim=None,
    ).eval()
    names = {new: old for old, new in unet_weights.OLD.items()}
    state = theirs.state_dict()
    old = {}
    for key, value in state.items():
        for new, was in names.items():
            key = key.replace(f".{new}.", f".{was}.") if "attentions" in key else key
        old[key] = value
    (tmp_path / "config.json").write_text(
        json.dumps({**theirs.config, "_class_name": "UNet2DModel"})
    )
    scheduler_config = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler_config))
    save_file(old, tmp_path / folder.WEIGHTS[0])
    return tmp_path, theirs


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@torch.no_grad()
def test_a_published_folder_is_read(published, kind):
    at, theirs = published
    if kind == "bin":
        torch.save(load_file(at / folder.WEIGHTS[0]), at / folder.WEIGHTS[1])
        (at / folder.WEIGHTS[0]).unlink()
    model, values = folder.read_folder(at)
    ours = model.network()
    ours.load_state_dict(layout.imported_weights(ours, unet_weights.names(ours), values))
    x_t = torch.randn(2, 3, 8, 8)
    output, expected = ours.eval()(x_t, torch.tensor([8, 8])), theirs(x_t, 7).sample
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    assert model.settings["process"]["class_path"] == "Linear"
    assert model.settings["sampler"]["step"]["init_args"] == {"variance": "large"}


CONFIGS = {
    "_class_name": "UNet2DConditionModel",
    "time_embedding_type": "fourier",
    "norm_eps": 1e-4,
    "sample_size": [8, 4],
    "act_fn": "gelu",
    "attn_norm_num_groups": 2,
    "down_block_types": ["SkipDownBlock2D", "DownBlock2D"],
}


@pytest.mark.parametrize("key", CONFIGS)
def test_an_option_without_counterpart_is_named(published, key):
    at, _ = published
    config = json.loads((at / "config.json").read_text())
    (at / "config.json").write_text(json.dumps({**config, key: CONFIGS[key]}))
    with pytest.raises(ValueError, match=r"config\.json: .*; expected") as error:
        folder.read_folder(at)
    assert key in str(error.value) or str(CONFIGS[key][0]) in str(error.value)


SCHEDULES = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "laplace",
    "set_alpha_to_one": False,
    "prediction_type": "flow",
    "variance_type": "learned",
}


@pytest.mark.parametrize("key", SCHEDULES)
def test_a_schedule_without_counterpart_is_named(key):
    with pytest.raises(ValueError, match=rf"scheduler_config\.json: {key}.*; expected"):
        scheduler.sampling_settings({"_class_name": "DDPMScheduler", key: SCHEDULES[key]})


def test_norms_that_would_have_fewer_groups_here_are_refused(published):
    at, _ = published
    config = json.loads((at / "config.json").read_text())
    (at / "config.json").write_text(json.dumps({**config, "norm_num_groups": 16}))
    with pytest.raises(ValueError, match=r"groups: .* has 4 here .*; expected 16"):
        folder.read_folder(at)
