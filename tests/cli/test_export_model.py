"""`diffusion export --to safetensors`: its folder is taken wherever a checkpoint is."""

import json
import re
import shutil
from inspect import signature
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from diffusion.common import weights
from diffusion.common.hashing import weights_digest
from diffusion.interop.exported_model import card, halves
from diffusion.pipeline import Pipeline
from diffusion.systems import frozen
from diffusion.systems.base import System
from diffusion.systems.captioning.captioner import Captioner
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.generative import Generative
from diffusion.systems.identity.identity_encoder import IdentityEncoder
from diffusion.systems.noisy_classifier import NoisyClassifier
from diffusion.systems.swapping.swapper import Swapper

SYSTEMS = [Captioner, Contrastive, Diffusion, IdentityEncoder, NoisyClassifier, PromptUpsampler]
SYSTEMS += [Swapper]


@pytest.fixture(scope="module")
def made(once):
    """A folder with a run, and its model exported beside it."""
    with once("made") as run:
        run.fit()
        last = "--ckpt=run/checkpoints/last.ckpt"
        run("export", "--to=safetensors", last, "--output=model", "--license=mit")
        return run.folder


@pytest.fixture
def exported(made, run):
    """A copy of it."""
    shutil.copytree(made, run.folder, symlinks=True, dirs_exist_ok=True)
    return run


def test_it_holds_the_averages_in_half_precision_and_the_configuration(exported):
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    with safe_open("model/model.safetensors", framework="pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}
    assert saved.keys() == content["state_dict"].keys()
    for name, value in content["state_dict"].items():
        assert saved[name].dtype == torch.half
        assert torch.equal(saved[name], value.half())
    read = weights.read(Path("model"))
    for key in ("global_step", "hyper_parameters", "config", "data"):
        assert read[key] == content[key], key
    assert Path("model/config.yaml").read_text() == content["config"]
    assert "optimizer_states" not in read
    card = Path("model/README.md").read_text()
    assert "license: mit" in card
    assert "    diffusion predict --ckpt_path model\n" in card
    network = Diffusion.load_from_checkpoint("run/checkpoints/last.ckpt").denoiser.network
    assert weights_digest(network.state_dict()) in card


def test_it_is_the_same_model_for_every_command(exported):
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    content["state_dict"] = {k: v.half().float() for k, v in content["state_dict"].items()}
    torch.save(content, "rounded.ckpt")
    for name, path in (("a", "rounded.ckpt"), ("b", "model")):
        exported("predict", f"--ckpt_path={path}", f"--trainer.default_root_dir={name}")
    first, second = (sorted(Path(x, "predictions").glob("0*.png")) for x in "ab")
    assert len(first) == 12
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    exported("test", "--ckpt_path=model", "--trainer.default_root_dir=c")
    assert json.loads(Path("c/metrics.json").read_text())["n"] == 20


def test_training_starts_from_it_and_does_not_go_on(exported, refused):
    module = Diffusion.load_from_checkpoint("model")
    exported("fit", "--config=tiny.yaml", "--model.start=model", "--trainer.default_root_dir=e")
    begun = torch.load("e/checkpoints/last.ckpt", weights_only=True)
    assert begun["state_dict"].keys() == module.state_dict().keys()
    assert "weights alone" in refused("fit", "--ckpt_path=model", "--trainer.max_steps=9")


def test_a_pipeline_draws_from_it(exported):
    a, b = (Pipeline.from_pretrained(x, device="cpu") for x in ("model", "model/model.safetensors"))
    assert torch.equal(a.draw(labels=[3], seed=1), b.draw(labels=[3], seed=1))


def test_without_a_flag_it_goes_where_no_such_processor_is(exported):
    content = weights.read(Path("run/checkpoints/last.ckpt"))
    config = content["config"].replace("accelerator: cpu", "accelerator: gpu")
    assert config != content["config"]
    torch.save({**content, "config": config}, "gpu.ckpt")
    exported("predict", "--ckpt_path=gpu.ckpt", "--data.samples=1", "--trainer.devices=1")


def test_what_is_there_is_kept_and_what_is_broken_refused(exported, refused):
    line = refused(
        "export", "--to=safetensors", "--ckpt=run/checkpoints/last.ckpt", "--output=model"
    )
    assert "model" in line
    Path("broken").mkdir()
    whole = Path("model/model.safetensors").read_bytes()
    Path("broken/model.safetensors").write_bytes(whole[:-100])
    assert "cut short" in refused("predict", "--ckpt_path=broken")
    shutil.rmtree("model")
    assert "there is none" in refused("predict", "--ckpt_path=model")


def test_it_is_compared_with_the_model_before_anything_is_drawn(exported, refused):
    line = refused("predict", "--ckpt_path=model", "--model.network.channels=16")
    assert line.startswith("ckpt_path: model is of another model: denoiser.network.")
    assert not Path("runs/model/predictions").exists()


@pytest.mark.parametrize("path", ["v1.0", "v1.0/model.safetensors"])
def test_its_run_has_its_name(exported, path):
    Path("model").rename("v1.0")
    exported("predict", f"--ckpt_path={path}", "--data.samples=1")
    assert [file.name for file in Path("runs/v1.0/predictions").glob("0*.png")] == ["000000_0.png"]


def card_of(path):
    state = {"network.weight": torch.zeros(2)}
    return card("mine", {"state_dict": state, "hyper_parameters": {"_class_path": path}}, "mit", "")


@pytest.mark.parametrize("kind", SYSTEMS)
def test_the_card_says_how_to_use_it(kind):
    """`predict` for what draws alone; the parts that it names are there, and take a checkpoint."""
    text = card_of(f"{kind.__module__}.{kind.__qualname__}")
    commands = [line.split() for line in text.splitlines() if line.startswith("    diffusion ")]
    assert commands
    assert all("mine" in command for command in commands)
    draws = ["diffusion", "predict", "--ckpt_path", "mine"]
    assert (draws in commands) == issubclass(kind, Generative)
    named = re.findall(r"`(Trained\w*)` with `checkpoint: mine`", text)
    assert all("checkpoint" in signature(getattr(frozen, name)).parameters for name in named)
    assert ("It draws nothing" in text) == bool(named)


def test_every_system_has_a_card_of_its_own():
    """Any other, such as one of the user's, is tested, as all can be."""

    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    here = {x for x in below(System) if x.__module__.startswith("diffusion.")}
    bases = {base for kind in here for base in kind.__mro__[1:]}
    assert here - bases == {*SYSTEMS}
    assert "    diffusion test --ckpt_path mine\n" in card_of("others.Mine")
    assert "    diffusion test --ckpt_path mine\n" in card_of("")


def test_weights_beyond_half_precision_are_refused():
    with pytest.raises(ValueError, match="a is beyond ±65504"):
        halves({"a": torch.tensor([7e4])})


def test_a_student_travels_without_its_teacher_and_is_drawn_as_it_was_taught(exported, refused):
    exported.write(
        "student.yaml",
        {
            "model": {
                "start": "model",
                "objective": {
                    "class_path": "Distilled",
                    "init_args": {
                        "teacher": {
                            "class_path": "diffusion.systems.frozen.TrainedTeacher",
                            "init_args": {"checkpoint": "model"},
                        },
                        "steps": 2,
                    },
                },
                "sampler": {"step": {"class_path": "DDIM", "init_args": {"eta": 0.0}}, "steps": 2},
            },
            "trainer": {"default_root_dir": "student"},
        },
    )
    exported.fit("--config", "student.yaml")
    exported("export", "--to=safetensors", "--ckpt=student/checkpoints/last.ckpt", "--output=two")
    shutil.rmtree("model")
    draw = ("predict", "--data.samples=2", "--writer.folder")
    for folder, path in (("a", "student/checkpoints/last.ckpt"), ("b", "two")):
        exported(*draw, folder, "--ckpt_path", path)
        assert len([*Path(folder).glob("**/*.png")]) >= 2
    said = refused(*draw, "c", "--ckpt_path", "two", "--model.sampler.steps", "4")
    assert "4 steps over the times" in said
    assert "expected steps: 2, spacing: trailing" in said
