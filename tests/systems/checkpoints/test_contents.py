"""Checkpoints of any content: one line, whatever stands where something else belongs."""

import copy
import random

import pytest
import torch
import yaml

from diffusion.systems.checkpoints.start import begin
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Trained

VALUES = [
    None,
    True,
    -1,
    10**30,
    float("nan"),
    "text",
    b"bytes",
    [],
    {},
    [1, "a"],
    {"a": {1: 2}},
    torch.zeros(0),
    torch.zeros(2, 3),
    torch.tensor(float("nan")),
    torch.ones(3, dtype=torch.bool),
    torch.eye(3).to_sparse(),
    torch.zeros(1).expand(10**5, 10**5),
]


def changed(content, seed):
    """Returns a copy with one entry, at any depth, missing or replaced."""
    draw, content = random.Random(seed), copy.deepcopy(content)
    config = yaml.safe_load(content["config"])
    root = config if draw.random() < 0.4 else content
    at, key = root, draw.choice(list(root))
    while isinstance(at[key], dict | list) and at[key] and draw.random() < 0.7:
        at = at[key]
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
    value = draw.choice(VALUES)
    plain = not isinstance(value, torch.Tensor | bytes)
    if isinstance(at, dict) and draw.random() < 0.3:
        del at[key]
    else:
        at[key] = value if root is content or plain else "other"
    if root is config:
        content["config"] = yaml.safe_dump(config)
    return content


WRONG = {
    "a list for weights": {"state_dict": [torch.zeros(2)]},
    "a text for weights": {"state_dict": "weights"},
    "no weights": {"state_dict": {}},
    "texts in weights": {"state_dict": {"a": "b"}},
    "sparse weights": {"state_dict": {"a": torch.eye(3).to_sparse()}},
    "a list for a configuration": {"config": ["a"]},
    "a number for a configuration": {"config": 3},
    "no YAML": {"config": "a: ["},
    "an alias bomb": {"config": "a: &a [x]\n" + "\n".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi"))},
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_every_command_refuses_in_one_line(fitted, refused, tmp_path, what):
    torch.save({**fitted.load(), **WRONG[what]}, tmp_path / "x.ckpt")
    for command in ("fit", "validate", "test", "predict"):
        assert "x.ckpt" in refused(command, "--ckpt_path", "x.ckpt")
    line = refused("export", "--to", "diffusers", "--ckpt", "x.ckpt", "--output", "out")
    assert "x.ckpt" in line
    if "config" not in WRONG[what]:
        for read in (Diffusion.load_from_checkpoint, Trained):
            with pytest.raises(ValueError, match="expected"):
                read(str(tmp_path / "x.ckpt"))
        with pytest.raises(ValueError, match="expected"):
            begin(torch.nn.Linear(2, 2), tmp_path / "x.ckpt")


COUNTS = ["epoch", "global_step", "ema_steps"]
LISTS = ["optimizer_states", "lr_schedulers"]


@pytest.mark.parametrize("key", [*COUNTS, *LISTS])
@pytest.mark.parametrize("value", ["nothing", "text", -1])
def test_training_goes_on_from_whole_checkpoints_only(fitted, refused, tmp_path, key, value):
    content = fitted.load()
    content[key] = value
    if value == "nothing" and key in COUNTS:
        del content[key]
    torch.save(content, tmp_path / "x.ckpt")
    assert f"expected its {key}" in refused("fit", "--ckpt_path", "x.ckpt")


def test_averages_of_gradients_have_the_parameters_shapes(fitted, refused, tmp_path):
    content = fitted.load()
    content["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(content, tmp_path / "x.ckpt")
    assert "exp_avg is (3,)" in refused("fit", "--ckpt_path", "x.ckpt", "--trainer.max_steps", "5")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_averages_of_another_precision_are_trained_on(fitted, run, tmp_path, dtype):
    content = fitted.load()
    content["state_dict"] = {k: v.to(dtype) for k, v in content["state_dict"].items()}
    torch.save(content, tmp_path / "x.ckpt")
    run("fit", "--ckpt_path", "x.ckpt", "--trainer.max_steps", "5")
    weights = run.load()["state_dict"].values()
    assert {x.dtype for x in weights if x.is_floating_point()} == {torch.float32}


def test_weights_that_are_not_numbers_draw_nothing(fitted, refused, run, tmp_path):
    content = fitted.load()
    next(iter(content["state_dict"].values())).view(-1)[0] = torch.nan
    torch.save(content, tmp_path / "x.ckpt")
    for command in ("predict", "test", "fit"):
        assert "expected finite weights, denoiser" in refused(command, "--ckpt_path", "x.ckpt")
    assert not (tmp_path / "run").exists()


def test_last_is_looked_at_too(fitted, refused, run, tmp_path):
    content = fitted.load()
    content["optimizer_states"] = "none"
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "run/checkpoints/last.ckpt")
    assert "optimizer_states" in refused("fit", "--config", "tiny.yaml", "--ckpt_path", "last")


@pytest.mark.parametrize("seed", range(12))
def test_one_entry_of_any_other_kind(fitted, run, tmp_path, capsys, seed):
    torch.save(changed(fitted.load(), seed), tmp_path / "x.ckpt")
    command = ("fit", "predict", "test", "export")[seed % 4]
    flags = ["--ckpt_path", "x.ckpt", "--trainer.max_steps", "5", "--data.samples", "1"]
    flags += ["--trainer.accelerator", "cpu", "--metrics.n", "2"]
    if command == "export":
        flags = ["--ckpt", "x.ckpt", "--to", "diffusers", "--output", "out"]
    with pytest.raises(SystemExit) as end:  # noqa: PT012
        run(command, *flags)
        raise SystemExit(0)
    assert end.value.code == 0 or "diffusion: error: " in capsys.readouterr().err
