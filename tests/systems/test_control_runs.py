"""A ControlNet from the command line: its base, its checkpoints, and several on one base."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from test_ddp import SGD
from tiny import BASE, LOW, TINY, controlled

from diffusion.networks import ControlNet, Hint, Locked, UNet, Upsampler
from diffusion.objective import Simple
from diffusion.parameterization import V
from diffusion.pipeline import Pipeline
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.averages.post_hoc import reconstructed, snapshots_until as snapshots
from diffusion.systems.cascade import Cascade
from diffusion.systems.diffusion import Diffusion

slow = pytest.mark.slow
ADHERENCE = "diffusion.metrics.Adherence"
DRAW = ("--data.samples=2", "--writer.format=npz")
QUIET = ("--samples.every_n_steps=0", "--trainer.limit_val_batches=0")
ZERO = "[Static, {class_path: ControlStrength, init_args: {name: low, scale: 0.0}}]"
OTHER = "--trainer.default_root_dir=other"
MOVED = "--model.network.base.checkpoint=moved.ckpt"


@pytest.fixture(scope="module")
def made(fitted, once):
    """A folder with a base, and run/ of a ControlNet that was trained for four steps."""
    with once("control") as made:
        shutil.copy(fitted.last, made.folder / BASE)
        made.write("control.yaml", controlled(copy.deepcopy(TINY)))
        made("fit", "--config", "control.yaml")
        yield made


@pytest.fixture
def here(made, run, monkeypatch):
    """Commands in a copy of that folder."""
    shutil.copytree(made.folder, run.folder, dirs_exist_ok=True, symlinks=True)
    return run


def images(folder):
    return torch.from_numpy(np.load(next(folder.glob("*.npz")))["images"])


def test_it_is_trained_exported_and_draws_by_a_sketch(run, fitted, tiny):
    """Trained from noise, which a checkpoint's network is rebuilt with before it has numbers."""
    shutil.copy(fitted.last, run.folder / BASE)
    controlled(tiny)["model"]["network"]["init_args"]["controls"]["low"]["start"] = "noise"
    run.write("control.yaml", tiny)
    run("fit", "--config=control.yaml", *QUIET, "--trainer.max_steps=2")
    run("export", "--to=safetensors", "--ckpt", run.last, "--output=half")
    Image.new("L", (16, 12), 200).save(run.folder / "sketch.png")
    run("predict", "--ckpt_path=half", "--data.control=sketch.png", *DRAW, "--writer.folder=half")
    assert images(run.folder / "half").shape[0] == 2


@slow
def test_its_adherence_is_measured(here):
    here("validate", "--ckpt_path", here.last, "--trainer.limit_val_batches=1")
    here("test", "--ckpt_path", here.last, "--metrics.n=6", f"--metrics.measures=[{ADHERENCE}]")
    figures = json.loads((here.folder / "run/metrics.json").read_text())["figures"]
    assert {"adherence_low@6", "adherence_low_share@6"} <= figures.keys()
    here("test", "--ckpt_path", here.last, "--metrics.n=6", f"--metrics.measures=[{ADHERENCE}]",
         f"--model.sampler.guidance={ZERO}")  # fmt: skip
    base = json.loads((here.folder / "run/metrics.json").read_text())["figures"]
    assert figures["adherence_low_none@6"] == base["adherence_low@6"] != figures["adherence_low@6"]


def test_a_cascade_hands_each_stage_the_control_at_its_size():
    """In means of what becomes one pixel, as these are grey, where a stage is smaller."""
    small = {"in_channels": 1, "channels": 8, "multipliers": [1], "attention": [], "blocks": 1}
    base = UNet(8, groups=4, **small)
    net = ControlNet(Locked(base), {"low": Hint(channels=3, widths=(4,))})
    top = Upsampler(image_size=16, groups=4, **small)
    with torch.no_grad():
        for weight in (*net.parameters(), *top.parameters()):
            weight.normal_(std=0.1)
    first, last = (
        Diffusion(one, Cosine(20), V(), Simple(), Sampler(DDIM(), 2)).eval() for one in (net, top)
    )
    low = torch.rand(2, 3, 16, 16)
    drawn = Cascade([first, last]).generate({"low": low}, [0, 1])
    x_0 = first.generate({"low": F.avg_pool2d(low, 2)}, [0, 1])
    assert not torch.equal(x_0, first.generate({"low": torch.zeros(2, 3, 8, 8)}, [0, 1]))
    assert torch.equal(drawn, last.generate({"low_res": x_0}, [0, 1]))


@slow
def test_its_best_average_is_found(here, same):
    here("fit", "--config=control.yaml", OTHER, "--snapshots.every_n_steps=2")
    here("average", "--ckpt_path=other/checkpoints/last.ckpt", "--widths=0.04", "--widths=0.2",
         "--output=averaged")  # fmt: skip
    record = json.loads((here.folder / "other/average.json").read_text())
    assert len({*record["figures"].values()}) == 3
    best = min(("0.04", "0.2"), key=record["figures"].get)
    found = Diffusion.load_from_checkpoint(here.folder / "averaged").state_dict()
    assert found.keys() == here.load()["state_dict"].keys()
    weights = reconstructed(snapshots(here.folder / "other/snapshots", 4), float(best), 4)
    assert len(weights) == len(found) - 1  # all but the base's mark
    assert same({k: found[k] for k in weights}, {k: w.half().float() for k, w in weights.items()})


@slow
def test_diffusers_have_no_such_network(here, refused):
    line = refused("export", "--to=diffusers", "--ckpt", here.last, "--output=folder")
    assert line.startswith("network: ControlNet; expected UNet")


@slow
def test_another_run_starts_from_a_control(here):
    here("fit", "--config=control.yaml", *QUIET, OTHER, "--model.start", here.last,
         "--snapshots.every_n_steps=2", "--model.optimizer.lr=0")  # fmt: skip
    old, new = here.load(), here.load("other/checkpoints/last.ckpt")
    for name, value in old["state_dict"].items():
        torch.testing.assert_close(new["state_dict"][name], value)


@slow
def test_two_processes_learn_the_weights_of_one(here):
    base = here.load(BASE)
    base["hyper_parameters"]["network"]["init_args"]["dropout"] = 0.0
    torch.save(base, here.folder / "moved.ckpt")
    flags = ("fit", "--config=control.yaml", *QUIET, *SGD, MOVED)
    forked = ("--trainer.strategy=ddp_fork", "--trainer.devices=2")
    here(*flags, *forked, "--trainer.default_root_dir=two")
    here(*flags, "--trainer.default_root_dir=one", "--data.batch_size=16")
    two, one = (here.load(f"{name}/checkpoints/last.ckpt") for name in ("two", "one"))
    for key in ("state_dict", "raw_state_dict"):
        assert two[key].keys() == one[key].keys()
        for name, weight in one[key].items():
            torch.testing.assert_close(two[key][name], weight, rtol=1e-5, atol=1e-6)


@slow
def test_its_checkpoint_holds_the_control_and_the_bases_digest(made, fitted):
    content, base = made.load(), fitted.load()
    names = {name.split(".")[2] for name in content["state_dict"]}
    assert names == {"base", "branches"}
    marks = [name for name in content["state_dict"] if ".base." in name]
    assert len(marks) == 1
    assert content["state_dict"][marks[0]].numel() == 0
    assert content["raw_state_dict"].keys() <= content["state_dict"].keys()
    assert all("branches" in name for name in content["raw_state_dict"])
    pipeline = Pipeline.from_pretrained(made.folder / "run", moved={BASE: made.folder / BASE})
    network = pipeline.system.denoiser.network
    for name, value in network.network.state_dict().items():
        assert torch.equal(value, base["state_dict"][f"denoiser.network.{name}"])  # the average
    assert any(z.weight.any() for z in network.branches["low"].zeros)


@slow
def test_strength_zero_draws_what_the_base_draws(here):
    last = ("predict", "--ckpt_path", here.last, *DRAW)
    here(*last, f"--model.sampler.guidance={ZERO}", "--writer.folder=zero")
    here("predict", "--ckpt_path", BASE, *DRAW, "--writer.folder=plain")
    assert torch.equal(images(here.folder / "zero"), images(here.folder / "plain"))
    here("export", "--to=safetensors", "--ckpt", here.last, "--output=half")
    here("predict", "--ckpt_path=half", *DRAW, f"--model.sampler.guidance={ZERO}",
         "--writer.folder=halves")  # fmt: skip
    assert torch.equal(images(here.folder / "halves"), images(here.folder / "plain"))
    here("export", "--to=safetensors", "--ckpt", BASE, "--output=base")
    here(*last, "--model.network.base.checkpoint=base", "--writer.folder=both")  # the same digest


@slow
def test_a_run_resumes_bit_for_bit(here, same):
    here("fit", "--config=control.yaml", *QUIET, "--trainer.default_root_dir=whole",
         "--trainer.max_steps=6")  # fmt: skip
    here("fit", "--ckpt_path", here.last, *QUIET, "--trainer.default_root_dir=parts",
         "--trainer.max_steps=6")  # fmt: skip
    whole, parts = (here.load(f"{name}/checkpoints/last.ckpt") for name in ("whole", "parts"))
    for key in ("state_dict", "raw_state_dict", "optimizer_states"):
        assert same(whole[key], parts[key]), key


@slow
def test_several_trained_controls_draw_on_one_base_without_a_checkpoint(here, refused):
    part = {"class_path": "TrainedControl", "init_args": {"checkpoint": here.last}}
    several = yaml.safe_load((here.folder / "control.yaml").read_text())
    several["model"]["network"]["init_args"]["controls"] = {"low": part, "other": part}
    several["data"]["init_args"]["controls"] = {k: LOW["low"] for k in ("low", "other")}
    several["trainer"]["default_root_dir"] = "several"
    half = "{{class_path: ControlStrength, init_args: {{name: {}, scale: 0.5}}}}".format
    guidance = f"[Static, {half('low')}, {half('other')}]"
    here.write("several.yaml", several)
    here("predict", "--config=several.yaml", *DRAW, f"--model.sampler.guidance={guidance}",
         "--writer.folder=two")  # fmt: skip
    here("predict", "--ckpt_path", here.last, *DRAW, "--writer.folder=one")
    two, one = (images(here.folder / name).int() for name in ("two", "one"))
    assert (two - one).abs().max() <= 1
    part["init_args"]["control"] = "edges"
    here.write("several.yaml", several)
    line = refused("predict", "--config=several.yaml")
    assert "model.network.controls.control: edges; expected one of ['low']" in line


@slow
def test_a_base_that_moved_is_found_by_a_flag_and_another_is_refused(here, refused):
    (here.folder / BASE).rename(here.folder / "moved.ckpt")
    line = refused("predict", "--ckpt_path", here.last)
    assert line.startswith(f"model.network.base.checkpoint: {BASE}; expected a file of weights")
    assert "--model.network.base.checkpoint" in line
    here("predict", "--ckpt_path", here.last, *DRAW, MOVED)
    with pytest.raises(FileNotFoundError, match=r"moved"):
        Diffusion.load_from_checkpoint(here.last)
    moved = Diffusion.load_from_checkpoint(here.last, moved={BASE: "moved.ckpt"})
    assert moved.denoiser.network.branches["low"].control.channels == 3
    content = torch.load(here.folder / "moved.ckpt", weights_only=True)
    next(iter(content["state_dict"].values())).add_(1.0)
    torch.save(content, here.folder / "moved.ckpt")
    line = refused("predict", "--ckpt_path", here.last, MOVED)
    assert "was trained with base_" in line
    assert "as model.network.base, this one is base_" in line
    with pytest.raises(ValueError, match=r"was trained with base_\w+ as model.network.base, this"):
        Diffusion.load_from_checkpoint(here.last, moved={BASE: "moved.ckpt"})


WRONG = {
    "base": ("--model.network.base.checkpoint=none", "none; expected a file of weights"),
    "T": ("--model.process.T=30", "model.network.base: it was trained with T = 20; expected the"),
    "meaning": ("--model.parameterization=X0", "model.parameterization: X0; expected V, as model."),
    "channels": ("--model.network.controls.low.channels=1", "'low' of 1 channels"),
    "control": ("--data.controls=null", "expected 'low' of 3 channels"),
    "guidance": (
        "--model.sampler.guidance=[{class_path: ControlStrength, init_args: {name: lo}}]",
        "model.sampler.guidance: it sets lo_strength; expected a network that reads it",
    ),
    "forgotten": ("--model.p_uncond=[{keys: [low], p: 0.5}]", "model.p_uncond.keys: ['low']"),
}


@slow
@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_one_line_before_training(here, refused, wrong):
    flag, message = WRONG[wrong]
    assert message in refused("fit", "--config=control.yaml", OTHER, flag)
