"""Checkpoints of strangers: nothing that they ask for is called, nothing is written elsewhere."""

import copy
import inspect
import sys
import types

import pytest
import torch
import yaml
from torch import nn

from diffusion.callbacks.metrics import Metrics
from diffusion.cli.convert import export
from diffusion.systems.cascade import Cascade
from diffusion.systems.checkpoints.trust import DEEPEST, LONGEST, MOST, Taken, loaded, trusting
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Trained, TrainedClip

CALL = {
    "class_path": "sympy.Lambda",
    "init_args": {"signature": "x", "expr": "__import__('pathlib').Path('called').touch()"},
}
LAMBDA = {"class_path": "torchvision.transforms.v2.Lambda", "init_args": {"lambd": CALL}}
# Where in the model section, and what; `canary` is a module whose import leaves a file.
MODEL = {
    "a class of another package": ("network", LAMBDA),
    "a class to import": ("network", {"class_path": "canary.Net"}),
    "a bare name to import": ("network", "canary.Net"),
    "a function": ("network", "canary.touch"),
    "what the package imports": ("network", "diffusion.cli.main.LightningCLI"),
    "a program": ("network", "diffusion.__main__.main"),
    "torch, not torch.optim": ("network", "torch.nn.Identity"),
    "another of our classes": ("network", "diffusion.process.Linear"),
    "in a list": ("sampler.init_args.guidance", [{"class_path": "canary.Net"}]),
    "deep inside": ("sampler.init_args.step", {"class_path": "RePaint", "init_args": {
        "step": {"class_path": "canary.Net"}}}),
    "a function for a schedule": ("lr_scheduler", {
        "class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os._exit"}}),
    "a call for a schedule": ("lr_scheduler", {
        "class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": CALL}}),
    "a function for an optimizer": ("optimizer", "canary.touch"),
    "more arguments": ("optimizer", {"class_path": "torch.optim.Adam", "init_args": {},
                                     "dict_kwargs": {"lr": CALL}}),
    "a class for a number": ("p_uncond", CALL),
    "a file for a class": ("network", "hostile.yaml"),
    "what fetches": ("network", {"class_path": "diffusion.networks.Towers", "init_args": {
        "image": "ResNet", "text": {"class_path": "diffusion.networks.HuggingFace",
                                    "init_args": {"name_or_path": "."}}}}),
}  # fmt: skip


class Kept:
    """A tiny checkpoint's content; each call writes one with changes."""

    def __init__(self, folder, content):
        self.folder, self.content = folder, content

    def __call__(self, model=(), config=(), **entries):
        content = copy.deepcopy(self.content)
        config_ = yaml.safe_load(content["config"])
        for path, value in dict(model).items():
            for root in (config_["model"]["init_args"], content["hyper_parameters"]):
                *outer, last = path.split(".")
                for key in outer:
                    root = root[key]
                root[last] = value
        for key, value in dict(config).items():
            section, _, name = key.partition(".")
            config_[section] = {**config_[section], name: value} if name else value
        content["config"] = yaml.safe_dump(config_)
        path = self.folder / "hostile" / "x.ckpt"
        path.parent.mkdir(exist_ok=True)
        torch.save({**content, **entries}, path)
        return path


@pytest.fixture
def hostile(run, fitted, monkeypatch):
    run.write("hostile.yaml", LAMBDA)
    (run.folder / "canary.py").write_text(
        "from pathlib import Path\n"
        "Path('called').touch()\n"
        "def touch(*_): Path('called').touch()\n"
        "class Net: pass\n"
    )
    monkeypatch.syspath_prepend(str(run.folder))
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    return Kept(run.folder, fitted.load())


def unharmed(folder):
    assert "canary" not in sys.modules
    assert not (folder / "called").exists()


@pytest.mark.parametrize("what", MODEL)
def test_no_reader_does_what_a_model_asks_for(hostile, refused, what, run):
    key, value = MODEL[what]
    path = hostile(model={key: value})
    last = key.split(".")[-1]
    every = ("fit", "validate", "test") if what == next(iter(MODEL)) else ()
    for command in (*every, "predict"):
        line = refused(command, "--ckpt_path", path)
        assert f"x.ckpt asks for model.{key.split('.')[0]}" in line
        assert last in line
        assert "--trust" in line
    assert "asks for model" in refused(
        "export", "--to", "diffusers", "--ckpt", path, "--output", "out"
    )
    with pytest.raises(ValueError, match="asks for model"):
        Diffusion.load_from_checkpoint(path)
    with pytest.raises(ValueError, match="asks for model"):
        Cascade([str(path)])
    unharmed(run.folder)
    assert not (run.folder / "out").exists()


def test_a_cascade_of_the_command_line_does_not_either(hostile, refused, run):
    path = hostile(model={"network": LAMBDA})
    cascade = {"class_path": "Cascade", "init_args": {"checkpoints": [str(path)]}}
    run.write("cascade.yaml", {"model": cascade, "data": {"class_path": "Digits"}})
    line = refused("predict", "--config", "cascade.yaml")
    assert line.startswith("model.checkpoints: ")
    assert "asks for model.network: torchvision.transforms.v2.Lambda" in line
    unharmed(run.folder)


@pytest.mark.parametrize("kind", [Trained, TrainedClip])
def test_guides_do_not_either(hostile, kind, run):
    about = {"name": "Digits", "shape": [1, 8, 8], "num_classes": 10, "classes": []}
    module = "noisy_classifier.NoisyClassifier" if kind is Trained else "contrastive.Contrastive"
    made_by = {"_class_path": f"diffusion.systems.{module}", "network": LAMBDA}
    made_by |= {"_instantiator": "lightning.pytorch.cli.instantiate_module", "process": "Linear"}
    path = hostile(data=about, hyper_parameters=made_by)
    with pytest.raises(ValueError, match=r"guidance.*asks for model.network: torchvision"):
        kind(str(path))
    unharmed(run.folder)


def test_messages_import_nothing(hostile, refused, run):
    path = hostile(config={"data.class_path": "diffusion.data.ImageFolder", "data.init_args": {
        "root": "class_path='canary.Net'", "size": 8}})  # fmt: skip
    assert "canary" in refused("validate", "--ckpt_path", path)
    unharmed(run.folder)


def test_hyperparameters_name_no_other_reader(hostile, run):
    hyper = {**hostile.content["hyper_parameters"], "_instantiator": "canary.touch"}
    assert isinstance(Diffusion.load_from_checkpoint(hostile(hyper_parameters=hyper)), Diffusion)
    hyper["_class_path"] = "canary.Net"
    with pytest.raises(ValueError, match="canary"):
        Diffusion.load_from_checkpoint(hostile(hyper_parameters=hyper))
    with pytest.raises(ValueError, match="expected a Cascade"):
        Cascade.load_from_checkpoint(hostile())
    unharmed(run.folder)


LAMBDA_CALLBACK = {
    "class_path": "lightning.pytorch.callbacks.LambdaCallback",
    "init_args": {"on_predict_start": "canary.touch"},
}


def test_folders_loggers_callbacks_and_plugins_are_left_out(hostile, run):
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "far"}}
    config = {
        "trainer.default_root_dir": "far",
        "trainer.callbacks": [LAMBDA_CALLBACK],
        "trainer.logger": logger,
        "trainer.profiler": {"class_path": "canary.Net"},
        "trainer.plugins": ["canary.Net"],
        "trainer.strategy": "canary.Net",
        "trainer.accelerator": "canary.Net",
        "trainer.devices": 10**6,
        "writer.folder": "far",
        "metrics.cache": "far",
        "data.class_path": "diffusion.data.Digits",
        "wandb": "online",
        "prompts": "hostile.yaml",
        "ckpt_path": "hostile.yaml",
        "trust": True,
    }
    ask = ("predict", "--ckpt_path", hostile(config=config), "--data.samples", "1")
    with pytest.warns(UserWarning, match=r"left out of its configuration: .*--trust"):
        run(*ask, "--wandb", "off")
    unharmed(run.folder)
    assert not (run.folder / "far").exists()
    assert len(list((run.folder / "runs/x/predictions").glob("0*.png"))) == 1


@pytest.mark.parametrize("devices", [10**6, "1000000", "-1,0", [0] * 10**4, {"a": 1}])
def test_there_are_no_more_processes_than_processors(devices):
    config = {"trainer": {"devices": devices, "max_steps": 3, "num_nodes": 10**6}}
    config |= {"wandb": "online"}
    assert Taken("f").configuration(config, {}, {}) == {"trainer": {"max_steps": 3}}


def test_sets_are_not_fetched_into_its_folders():
    taken = Taken("f").arguments
    from diffusion.data import FashionMNIST
    from diffusion.networks import MiniLM

    assert taken({"root": "/home", "download": True}, FashionMNIST, "data")["download"] is False
    assert taken({"root": "data", "download": True}, FashionMNIST, "data")["download"] is True
    assert "root" not in taken({"root": "/home"}, MiniLM, "network")


def test_the_run_is_where_the_checkpoint_lies(fitted, run, tmp_path):
    from diffusion.cli.main import main

    (tmp_path / "moved/checkpoints").mkdir(parents=True)
    place = tmp_path / "moved/checkpoints/a.ckpt"
    place.write_bytes((fitted.folder / "run/checkpoints/last.ckpt").read_bytes())
    main(["predict", "--ckpt_path", str(place), "--data.samples", "1"])
    assert (tmp_path / "moved/predictions").is_dir()
    (tmp_path / "mine.ckpt").write_bytes(place.read_bytes())
    main(["predict", "--ckpt_path", "mine.ckpt", "--data.samples", "1"])
    assert (tmp_path / "runs/mine/predictions").is_dir()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def own(monkeypatch):
    """A user's own network in a module of his own."""
    from diffusion.networks import UNet

    module = types.ModuleType("mine")
    module.Net = type("Net", (UNet,), {"__module__": "mine"})  # pyright: ignore
    monkeypatch.setitem(sys.modules, "mine", module)
    return "mine.Net"


def test_a_class_of_ones_own_is_named_or_trusted(hostile, refused, run, own, tiny):
    path = hostile(model={"network.class_path": own})
    line = refused("predict", "--ckpt_path", path)
    assert "model.network: mine.Net" in line
    ask = ("predict", "--ckpt_path", path, "--data.samples", "1")
    run(*ask, "--trust")
    tiny["model"]["network"]["class_path"] = own
    run.write("own.yaml", tiny)
    run(*ask, "--config", "own.yaml")
    with pytest.raises(ValueError, match=r"mine\.Net"):
        Cascade([str(path)])
    assert isinstance(Cascade([str(path)], trust=True), Cascade)
    assert Diffusion.load_from_checkpoint(path, trust=True).denoiser.network is not None
    with pytest.raises(ValueError, match=r"asks for model.network: mine\.Net"):
        export(to="diffusers", ckpt=str(path), output="out")
    with pytest.raises(ValueError, match="Net; expected UNet"):  # it has been made
        export(to="diffusers", ckpt=str(path), output="out", trust=True)


TEXTS = {
    "a list": "[1, 2]",
    "a number": "3",
    "no YAML": "a: [",
    "a tag": "a: !!python/object/apply:os.system [x]",
    "aliases": "a: &a [1, 2]\nb: [*a, *a]",
    "deep": "a: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    "deeper": "[" * 10**5,
    "long": "#" * (LONGEST + 1),
    "digits": "a: " + "9" * 5000,
    "control": "a: \0",
}


@pytest.mark.parametrize("what", TEXTS)
def test_no_configuration(what):
    with pytest.raises(ValueError, match="f; expected a configuration") as error:
        loaded(TEXTS[what], "f")
    assert "\n" not in str(error.value)


def test_a_configuration_is_of_no_more_levels_and_values_than_one_that_was_saved():
    deep, many = [], [0] * MOST
    for _ in range(DEEPEST):
        deep = [deep]
    for value in (deep, many):
        with pytest.raises(ValueError, match="expected a smaller configuration"):
            Taken("f").configuration({"model": {"extractor": value}}, {}, {"model": Metrics})


def absurd(section, **arguments):
    return {"model": {f"{section}.init_args.{k}": v for k, v in arguments.items()}}


ABSURD = [
    absurd("network", channels=10**9),
    absurd("network", channels=10**7),
    absurd("network", blocks=10**7),
    absurd("network", multipliers=[1] * 10**4),
    absurd("network", num_classes=10**9),
    absurd("network", image_size=10**6),
    absurd("process", T=10**9),
    {"config": {"data": {"class_path": "FashionMNIST", "init_args": {"size": 10**6}}}},
    {"config": {"metrics": {"extractor": {"class_path": "LeNet", "init_args": {"width": 10**8}}}}},
]


@pytest.mark.parametrize("changes", ABSURD, ids=range(len(ABSURD)))
def test_absurd_sizes_take_no_memory(hostile, refused, changes):
    line = refused("predict", "--ckpt_path", hostile(**changes))
    assert "expected" in line


def classes():
    from diffusion.cli.checkpoint_config import PARTS
    from diffusion.cli.flags import SECTIONS

    left, found = [*PARTS.values(), *SECTIONS.values()], set()
    while left:
        kind = left.pop()
        found.add(kind)
        left += type.__subclasses__(kind)
    return {kind for kind in found if kind.__module__.startswith("diffusion.")}


def test_folders_are_known_by_their_names():
    names = {
        "root",
        "low_root",
        "control",
        "identity",
        "image_prompt",
        "pose",
        "edit",
        "mask",
        "start",
        "prompts",
        "checkpoints",
    }  # to be read
    names |= {
        "labels",
        "classes",
        "controls",
        "captions",
        "upsampled",
        "sources",
        "prompt",
    }  # names
    taken = {"cache", "dirpath", "folder", *names}
    for kind in classes():
        for p in inspect.signature(kind.__init__).parameters.values():
            if "str" in str(p.annotation) and "Literal" not in str(p.annotation):
                assert p.name in taken, f"{kind.__name__}.{p.name}: to be written to, or read?"


def test_trust_lasts_as_long_as_it_is_given():
    class Mine(nn.Module):
        pass

    Mine.__module__, Mine.__qualname__ = "mine", "Mine"
    sys.modules["mine"] = types.ModuleType("mine")
    sys.modules["mine"].Mine = Mine  # pyright: ignore
    try:
        with trusting(False, ["mine.Mine"]):
            assert Taken("f").object("mine.Mine", nn.Module, "a") == {"class_path": "mine.Mine"}
        with pytest.raises(ValueError, match=r"mine\.Mine"):
            Taken("f").object("mine.Mine", nn.Module, "a")
    finally:
        del sys.modules["mine"]
