"""The command line in this process, on networks so small that a run takes about a second."""

import copy
import itertools
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from tiny import TINY


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def lite0(monkeypatch):
    """EfficientNet-lite0 with weights that are not fetched, for whatever stands on it."""
    from diffusion.networks import photo_tower
    from diffusion.networks.efficientnet_lite0 import Lite0
    from diffusion.networks.identity import projected_discriminator

    net = Lite0().eval().requires_grad_(False)
    for module in (photo_tower, projected_discriminator):
        monkeypatch.setattr(module, "load_lite0", lambda _: net)


class Run:
    """Commands in a folder of their own, which has the file tiny.yaml."""

    def __init__(self, folder):
        self.folder = folder
        self.write("tiny.yaml", TINY)

    @property
    def last(self):
        return str(self.folder / "run/checkpoints/last.ckpt")

    def write(self, name, config):
        (self.folder / name).write_text(yaml.safe_dump(copy.deepcopy(config)))
        return name

    def __call__(self, *args):
        """What is made of a checkpoint of another folder goes into this one's."""
        from diffusion.__main__ import main

        args, root = [str(a) for a in args], "--trainer.default_root_dir"
        paths = [Path(b) for a, b in itertools.pairwise(args) if a == "--ckpt_path"]
        elsewhere = any(p.is_file() and self.folder not in p.parents for p in paths)
        elsewhere = elsewhere and args[0] in ("fit", "validate", "test", "predict")
        if elsewhere and not any(a.startswith(root) for a in args):
            args += [root, "run"]
        main(args)

    def fit(self, *args):
        self("fit", "--config", "tiny.yaml", *args)

    def load(self, path="run/checkpoints/last.ckpt"):
        return torch.load(self.folder / path, weights_only=True)


@pytest.fixture
def run(tmp_path, monkeypatch):
    import diffusion.cli.main  # noqa: F401  # before Lightning's log could take capsys' stream

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr("diffusion.plots.pictures.curve", lambda *_: False)  # takes time
    before = dict(os.environ)
    yield Run(tmp_path)
    for key in set(os.environ) - set(before):  # Lightning leaves PL_GLOBAL_SEED
        del os.environ[key]


@pytest.fixture
def tiny():
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """A run of four steps, to be read only; predictions go elsewhere."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        made = Run(folder)
        made.fit()
        os.environ.pop("PL_GLOBAL_SEED", None)
    return made


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Makes a folder in which commands are run once, for several tests to read only."""

    @contextmanager
    def folder(name):
        made = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(made)
            patch.setenv("PL_GLOBAL_SEED", "0")
            patch.setattr("diffusion.plots.pictures.curve", lambda *_: False)  # takes time
            yield Run(made)

    return folder


@pytest.fixture
def refused(run, capsys):
    """Runs a command that must fail, and returns the one line that says why."""

    def call(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run(*args)
        lines = [x for x in capsys.readouterr().err.splitlines() if x and not lightnings(x)]
        assert end.value.code == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("diffusion: error: ")
        assert len(lines[0]) < 450
        return lines[0].removeprefix("diffusion: error: ")

    return call


@pytest.fixture
def extra(monkeypatch):
    """Adds a callback to every trainer of the command line, and returns it."""

    def add(callback):
        from lightning.pytorch.cli import LightningCLI

        make = LightningCLI._instantiate_trainer
        monkeypatch.setattr(
            LightningCLI,
            "_instantiate_trainer",
            lambda self, config, callbacks: make(self, config, [*callbacks, callback]),
        )
        return callback

    return add


def lightnings(line):
    """Whether Lightning or Python said it on the way: not an error."""
    start = ("Seed set", "GPU available", "TPU available", "HPU", "💡", "Restor", "Loaded model")
    start += ("ckpt_path: last is",)
    return line.startswith(start) or "Warning" in line or "site-packages" in line


def equal(a, b):
    """Whether two nests of tensors are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))
    return a == b


@pytest.fixture
def same():
    return equal
