"""`diffusion import` and `diffusion export`, and that weights are data, never code."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from diffusion.interop import layout, openai
from diffusion.interop.diffusers import unet_weights
from diffusion.interop.presets import PRESETS, Model, node
from diffusion.networks import ClassifierNetwork, LinearUNet, UNet
from diffusion.spec import DataSpec
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Trained
from diffusion.systems.noisy_classifier import NoisyClassifier

sys.path.append(str(Path(__file__).parents[1] / "interop"))

from seeded import weights as seeded

ROOT = Path(__file__).parents[2]
NETWORK = {"image_size": 8, "in_channels": 1, "channels": 64, "multipliers": [1], "attention": []}
NETWORK |= {"blocks": 1, "num_classes": 10}
ADM = {**NETWORK, "out_channels": 2, "family": "openai", "scale_shift": True, "null_class": False}
PROCESS = node("Linear", T=20, beta_1=0.01, beta_T=0.3)
SMALL = {
    "adm_imagenet64": Model(
        {
            "network": node("UNet", **ADM),
            "process": PROCESS,
            "parameterization": "Eps",
            "objective": "Hybrid",
            "sampler": {
                "step": node("DDPM", variance="learned"),
                "steps": 3,
                "guidance": ["Static"],
            },
            "optimizer": node("torch.optim.AdamW", lr=1e-4),
        }
    ),
    "classifier_imagenet64": Model(
        {
            "network": node("ClassifierNetwork", **NETWORK),
            "process": PROCESS,
            "optimizer": node("torch.optim.AdamW", lr=1e-4),
        },
        kind="NoisyClassifier",
    ),
}
DATA = {
    "data": {"class_path": "Digits", "init_args": {"batch_size": 8, "samples": 3}},
    "samples": {"every_n_steps": 0, "columns": 2, "moments": 3},
    "metrics": {"n": 10, "extractor": {"class_path": "LeNet", "init_args": {"steps": 2}}},
    "wandb": "off",
    "trainer": {
        "default_root_dir": "run",
        "max_steps": 2,
        "limit_test_batches": 1,
        "limit_val_batches": 1,
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}


@pytest.fixture
def published(run, monkeypatch):
    """A folder with the file x.pt of a small published network, and data.yaml."""
    monkeypatch.setattr(openai, "PRESETS", SMALL)
    run.write("data.yaml", DATA)

    def make(name):
        network = SMALL[name].network("meta")
        values = seeded(layout.shapes(network, openai.names(network)))
        torch.save(values, run.folder / "x.pt")
        return values

    run.make = make
    return run


def imported(run, *args):
    run("import", "--from", "openai", "--weights", "x.pt", "--output", "x.ckpt", *args)


@pytest.mark.slow
def test_an_imported_model_is_tested_predicted_validated_and_trained_further(published, capsys):
    values = published.make("adm_imagenet64")
    imported(published)
    module = Diffusion.load_from_checkpoint("x.ckpt")
    network = module.denoiser.network
    assert isinstance(network, UNet)
    for ours, (theirs,) in openai.names(network).items():
        kept = network.state_dict()[ours].flatten()
        assert torch.equal(kept, values[theirs].flatten())
    flags = ("--ckpt_path", "x.ckpt", "--config", "data.yaml")
    published("test", *flags)
    assert json.loads(Path("run/metrics.json").read_text())["sampler"]["steps"] == 3
    published("validate", *flags)
    published("predict", *flags, "--model.sampler.steps", "2")
    assert list(Path("run").glob("**/*.png"))
    published("fit", *flags, "--trainer.default_root_dir", "tuned")
    tuned = torch.load("tuned/checkpoints/last.ckpt", weights_only=True)
    assert tuned["global_step"] == 2
    name = "denoiser.network.conv_in.weight"
    moved = (tuned["raw_state_dict"][name] - module.state_dict()[name]).abs()
    assert 0 < moved.max() < 1e-3


def test_an_imported_classifier_guides(published):
    published.make("classifier_imagenet64")
    imported(published)
    module = NoisyClassifier.load_from_checkpoint("x.ckpt")
    assert isinstance(module.network, ClassifierNetwork)
    guide = Trained("x.ckpt")
    assert guide.spec == DataSpec(None, (1, 8, 8), 10)
    Path("x.ckpt").rename("classifier.ckpt")
    published.make("adm_imagenet64")
    imported(published)
    trained = {"class_path": "Trained", "init_args": {"checkpoint": "classifier.ckpt"}}
    guidance = ["Static", node("Classifier", scale=0.5, classifier=trained)]
    published.write("guided.yaml", {"model": {"sampler": {"guidance": guidance}}})
    published("test", "--ckpt_path=x.ckpt", "--config=data.yaml", "--config=guided.yaml")
    figures = json.loads(Path("run/metrics.json").read_text())["figures"]
    assert any(name.startswith("classifier_nfe") for name in figures)


def test_a_configuration_describes_what_is_no_preset(published):
    published.make("adm_imagenet64")
    model = SMALL.pop("adm_imagenet64")
    try:
        published.write("model.yaml", {"model": {**model.settings, "process": node("Cosine", T=7)}})
        imported(published, "--config", "model.yaml")
    finally:
        SMALL["adm_imagenet64"] = model
    assert Diffusion.load_from_checkpoint("x.ckpt").process.T == 7


def lucidrains_file(prefix="ema_model."):
    """What the package's trainer saves, of a small network, for ε and a linear process."""
    network = LinearUNet(1, channels=8, multipliers=(1, 2), heads=(2, 2), head_widths=(4, 4),
                         full=(False, True))  # fmt: skip
    from diffusion.interop import lucidrains

    state = seeded(layout.shapes(network, lucidrains.names(network)))
    for name in state:  # shapes have no ones at their end
        if name.endswith(".g"):
            state[name] = state[name][..., None, None]
    betas = torch.linspace(0.1 / 50, 0.4, 50)
    tables = {name: torch.zeros(50) for name in lucidrains.TABLES}
    tables |= {"betas": betas, "loss_weight": torch.ones(50)}
    tables["alphas_cumprod"] = (1 - betas).cumprod(0)
    whole = {**{f"model.{k}": v for k, v in state.items()}, **tables}
    ema = {f"{prefix}{k}": v for k, v in whole.items()}
    online = {f"online_model.{k}": torch.zeros_like(v) for k, v in whole.items()}
    ema |= online | {"initted": torch.tensor(True), "step": torch.tensor(3)}
    return {"step": 3, "model": whole, "opt": {}, "ema": ema, "scaler": None, "version": "2.2.5"}


def test_a_file_of_denoising_diffusion_pytorch(published):
    torch.save(lucidrains_file(), "x.pt")
    published("import", "--from=ddpm-torch", "--weights=x.pt", "--output=x.ckpt")
    module = Diffusion.load_from_checkpoint("x.ckpt")
    assert isinstance(module.denoiser.network, LinearUNet)
    assert (type(module.process).__name__, module.process.T) == ("Linear", 50)
    assert type(module.denoiser.parameterization).__name__ == "Eps"
    published("test", "--ckpt_path=x.ckpt", "--config=data.yaml", "--model.sampler.steps=2")


WRONG = {
    "of another": (lambda w: w.update({"time_embed.2.bias": torch.zeros(3)}), "time_embed.2.bias"),
    "missing": (lambda w: w.pop("out.2.bias"), "missing: out.2.bias"),
    "unknown": (lambda w: w.update(more=torch.zeros(1)), "not accounted for: more"),
    "no tensor": (lambda w: w.update(more="text"), "'more' is str"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_tensor_without_a_place_is_named(published, refused, kind):
    change, reason = WRONG[kind]
    values = published.make("adm_imagenet64")
    change(values)
    torch.save(values, "x.pt")
    line = refused("import", "--from=openai", "--weights=x.pt", "--output=x.ckpt")
    assert reason in line
    assert not Path("x.ckpt").exists()


def test_shapes_of_two_presets_want_a_name(published, refused, monkeypatch):
    published.make("adm_imagenet64")
    monkeypatch.setitem(SMALL, "adm_lsun", SMALL["adm_imagenet64"])
    line = refused("import", "--from=openai", "--weights=x.pt", "--output=x.ckpt")
    assert "adm_imagenet64 and of adm_lsun" in line
    assert "--preset" in line
    imported(published, "--preset", "adm_lsun")
    assert Path("x.ckpt").exists()


def test_wrong_arguments_are_one_line(published, refused):
    published.make("adm_imagenet64")
    command = ("import", "--from=openai", "--weights=x.pt")
    assert "output" in refused(*command)
    line = refused(*command, "--output=y", "--preset=adm")
    assert "preset: adm; expected one of " in line
    assert "adm_imagenet64" in line
    assert "'ddpm-torch'" in refused("import", "--from=tf", "--weights=x.pt", "--output=y.ckpt")
    assert "there is none" in refused("import", "--from=openai", "--weights=y", "--output=y.ckpt")
    Path("y.ckpt").write_text("mine")
    assert "y.ckpt exists" in refused(*command, "--output=y.ckpt")
    assert Path("y.ckpt").read_text() == "mine"


def tiny_unet(tiny):
    """A run whose model diffusers can express."""
    arguments = tiny["model"]["network"]["init_args"]
    arguments |= {"channels": 8, "groups": 2, "multipliers": [1, 2], "attention": [4]}
    del arguments["num_classes"]
    tiny["model"] |= {"p_uncond": 0.0, "parameterization": "Eps"}
    tiny["model"]["sampler"] |= {"step": node("DDIM", eta=0.0), "steps": 4}
    return tiny


@pytest.mark.slow
@torch.no_grad()
def test_a_trained_model_goes_out_and_comes_back(run, tiny, refused):
    from diffusers import DDIMPipeline

    run.write("tiny.yaml", tiny_unet(tiny))
    run.fit()
    run("test", "--ckpt_path", run.last)
    run("export", "--to=diffusers", "--ckpt", run.last, "--output=out", "--license=apache-2.0")
    line = refused("export", "--to=diffusers", "--ckpt", run.last, "--output=out")
    assert "out exists" in line
    card = Path("out/README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "fd_lenet" in card
    assert "use_clipped_model_output=True" in card
    module = Diffusion.load_from_checkpoint(run.last)
    x_T = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = module.sampler(module.denoiser.eval(), module.process, x_T)
    pipeline = DDIMPipeline.from_pretrained("out")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        3,
        torch.Generator().manual_seed(0),
        num_inference_steps=4,
        use_clipped_model_output=True,
        output_type="pt",
    ).images
    torch.testing.assert_close(images, (ours / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-4)
    run("import", "--from=diffusers", "--weights=out", "--output=back.ckpt")
    back = Diffusion.load_from_checkpoint("back.ckpt")
    assert back.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(back.state_dict()[k], v) for k, v in module.state_dict().items())
    again = back.sampler.step, back.denoiser.parameterization, back.sampler.guidance
    assert [type(x).__name__ for x in again[:2]] == ["DDIM", "Eps"]
    torch.testing.assert_close(back.process.alpha, module.process.alpha)


def test_export_takes_another_sampler_and_labels(published, refused):
    published.make("adm_imagenet64")
    imported(published)
    command = ("export", "--to=diffusers", "--ckpt=x.ckpt", "--output=out")
    published.write("ddim.yaml", {"model": {"sampler": {"step": node("DDIM"), "steps": 4}}})
    assert "expected DDPM" in refused(*command, "--config=ddim.yaml", "--license=mit")
    published.write("all.yaml", {"model": {"sampler": {"steps": None}}})
    published(*command, "--config=all.yaml")
    assert json.loads(Path("out/model_index.json").read_text())["_class_name"] == "DDPMPipeline"
    unet = json.loads(Path("out/unet/config.json").read_text())
    assert (unet["num_class_embeds"], unet["out_channels"]) == (10, 2)
    card = Path("out/README.md").read_text()
    assert "class_labels=labels" in card
    assert "scheduler.set_timesteps(20)" in card
    assert "None were measured" in card


def test_a_classifier_is_not_exported(published, refused):
    published.make("classifier_imagenet64")
    imported(published)
    line = refused("export", "--to=diffusers", "--ckpt=x.ckpt", "--output=out")
    assert "NoisyClassifier" in line


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


GUIDED = {"class_path": "Trained", "init_args": {"checkpoint": "trap.pt"}}
COMMANDS = {
    "import_openai": ("import", "--from=openai", "--weights=trap.pt", "--output=x.ckpt"),
    "import_lucidrains": ("import", "--from=ddpm-torch", "--weights=trap.pt", "--output=x.ckpt"),
    "import_diffusers": ("import", "--from=diffusers", "--weights=folder", "--output=x.ckpt"),
    "export": ("export", "--to=diffusers", "--ckpt=trap.pt", "--output=x"),
    "test": ("test", "--ckpt_path=trap.pt", "--config=tiny.yaml"),
    "predict": ("predict", "--ckpt_path=trap.pt", "--config=tiny.yaml"),
    "validate": ("validate", "--ckpt_path=trap.pt", "--config=tiny.yaml"),
    "fit": ("fit", "--ckpt_path=trap.pt", "--config=tiny.yaml"),
    "fit_last": ("fit", "--ckpt_path=last", "--config=tiny.yaml"),
    "test_last": ("test", "--ckpt_path=last", "--config=tiny.yaml"),
    "guidance": ("fit", "--config=tiny.yaml", "--config=guided.yaml"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_malicious_pickle_runs_nothing(run, refused, name, zipped):
    content = {"state_dict": {"weight": Trap(run.folder / "sprung")}, "config": "{}"}
    torch.save(content, "trap.pt", _use_new_zipfile_serialization=zipped)
    Path("run/checkpoints").mkdir(parents=True)
    shutil.copy("trap.pt", "run/checkpoints/last.ckpt")
    Path("folder").mkdir()
    shutil.copy("trap.pt", "folder/diffusion_pytorch_model.bin")
    unet = UNet(8, 1, channels=8, multipliers=(1,), attention=(), groups=2)
    Path("folder/config.json").write_text(json.dumps(unet_weights.unet_config(unet)))
    run.write(
        "guided.yaml",
        {"model": {"sampler": {"guidance": [node("Classifier", scale=1.0, classifier=GUIDED)]}}},
    )
    line = refused(*COMMANDS[name])
    assert "trap.pt" in line or "last.ckpt" in line or "model.bin" in line
    assert "code" in line or name == "guidance" or not (zipped or name.startswith("import"))
    assert not Path("sprung").exists()
    assert not Path("x.ckpt").exists()
    torch.load("trap.pt", weights_only=False)
    assert Path("sprung").exists()  # where pickles are trusted, the trap works


CONFIGURED = [n for n in PRESETS if n[:3] == "adm" and (ROOT / f"configs/{n}.yaml").exists()]


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_preset_is_what_the_configuration_of_its_training_says(name):
    model = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["model"]
    mine = PRESETS[name].settings
    assert model["process"] == mine["process"]
    assert model["parameterization"] == mine["parameterization"]
    assert model["objective"] == mine["objective"]
    network = __import__("diffusion.networks", fromlist=["x"]).UNet
    with torch.device("meta"):
        one = network(**model["network"]["init_args"])
        other = network(**mine["network"]["init_args"])
    assert one.style == other.style
    assert str(one) == str(other)
