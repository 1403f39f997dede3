import os
import subprocess
import sys

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.integrate import quad

from diffusion.data import Digits
from diffusion.networks import UNet
from diffusion.objective import Simple
from diffusion.parameterization import V
from diffusion.pipeline import trainer
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.averages import EMA, Power, Snapshots
from diffusion.systems.averages.post_hoc import (
    Snapshot,
    coefficients,
    inner,
    reconstructed,
    snapshots_until,
)
from diffusion.systems.diffusion import Diffusion


def product(u, one, other):
    """p_i(u) p_j(u) of (γ, t) pairs."""
    return np.prod([(g + 1) / t * (u / t) ** g for g, t in (one, other)])


def test_inner_products_are_the_integrals():
    gamma, t = np.array([16.97, 6.94, 0.5]), np.array([30.0, 80.0, 50.0])
    for one in zip(gamma, t):
        for value, other in zip(inner(gamma, t, *map(np.array, one)), zip(gamma, t)):
            whole = quad(product, 0, min(one[1], other[1]), args=(one, other))[0]
            assert value == pytest.approx(whole, rel=1e-7)


def test_a_length_that_is_there_is_taken_as_it_is():
    every = [Snapshot(None, t, w) for t in (25, 50, 100) for w in (0.05, 0.1)]
    x = coefficients(every, 0.1, 100)
    np.testing.assert_allclose(x, [0, 0, 0, 0, 0, 1], atol=1e-8)
    assert coefficients(every, 0.15, 100).sum() == pytest.approx(1)


class Tracked(L.Callback):
    """Averages of other lengths, tracked while training."""

    def __init__(self, *widths):
        self.every = {w: EMA(rate=Power(w)) for w in widths}

    def on_train_start(self, trainer, module):
        for ema in self.every.values():
            ema.on_train_start(trainer, module)

    def on_train_batch_end(self, *args):
        for ema in self.every.values():
            ema.on_train_batch_end(*args)


def test_other_lengths_are_reconstructed(tmp_path):
    """Against averages that were truly tracked, in units of how far apart the lengths are."""
    torch.manual_seed(0)
    network = UNet(8, 1, channels=8, multipliers=[1], attention=[], blocks=1, groups=4)
    parts = (network, Cosine(20), V(), Simple(), Sampler(DDIM(), 2))
    tracked, snapshots = Tracked(0.03, 0.07, 0.2), Snapshots(8)
    quiet = {"enable_progress_bar": False, "limit_val_batches": 0, "accelerator": "cpu"}
    fitting = trainer(tmp_path, tracked, snapshots, max_steps=160, **quiet)
    fitting.fit(Diffusion(*parts), Digits(batch_size=8))
    every = snapshots_until(tmp_path / "snapshots", 160)
    assert [(one.step, one.width) for one in every[-2:]] == [(160, 0.05), (160, 0.1)]
    assert len(every) == 40
    nearest = {0.03: 0.05, 0.07: 0.05, 0.2: 0.1}
    for width, ema in tracked.every.items():
        made = reconstructed(every, width, 160)
        assert made.keys() == ema.average.keys()
        other = snapshots.tracked[f"{nearest[width]:.4g}"].average
        error = sum((made[k] - v).square().sum() for k, v in ema.average.items()).sqrt()
        apart = sum((other[k] - v).square().sum() for k, v in ema.average.items()).sqrt()
        assert error < {0.03: 0.5, 0.07: 0.1, 0.2: 0.03}[width] * apart, (width, error / apart)


FLAGS = ("--snapshots.every_n_steps=2", "--ema.rate=Power", "--ema.rate.width=0.2")


@pytest.mark.slow
def test_a_resumed_run_has_the_same_snapshots_and_averages(run, same):
    """And the power average is the one that checkpoints hold."""
    run.fit(*FLAGS)
    other = "--trainer.default_root_dir=other"
    run.fit(*FLAGS, other, "--trainer.max_steps=3")
    run.fit(*FLAGS, other, "--ckpt_path=last")
    one, two = run.load(), run.load("other/checkpoints/last.ckpt")
    for key in ("state_dict", "raw_state_dict"):
        assert same(one[key], two[key])
    state = one["callbacks"]["Snapshots"]
    files = {p.name: p for p in (run.folder / "run/snapshots").iterdir()}
    assert set(files) == {f"step_{n:07d}_{w}.safetensors" for n in (2, 4) for w in (0.05, 0.1)}
    for name, file in files.items():
        assert same(load_file(file), load_file(run.folder / "other/snapshots" / name))
    for width in ("0.05", "0.1"):
        saved = load_file(files[f"step_0000004_{width}.safetensors"])
        assert same(saved, {k: v.half() for k, v in state[width]["average"].items()})
        assert state[width]["steps"] == 4
    narrow, wide, evaluated = (
        state["0.05"]["average"],
        state["0.1"]["average"],
        {k: one["state_dict"][k] for k in one["raw_state_dict"]},
    )
    far = [
        sum((a[k] - one["raw_state_dict"][k]).square().sum() for k in a)
        for a in (narrow, wide, evaluated)
    ]
    assert 0 < far[0] < far[1] < far[2]


def test_steps_that_were_not_tracked_are_refused(fitted, refused):
    more = ("--ckpt_path", fitted.last, "--trainer.max_steps=8")
    line = refused("fit", "--config=tiny.yaml", FLAGS[0], *more)
    assert "snapshots.every_n_steps: 2; expected 0, as the run's first 4 steps" in line


@pytest.mark.slow
def test_two_processes_write_snapshots_once(run, same):
    flags = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    call = [sys.executable, "-m", "diffusion", "fit", "--config=tiny.yaml", *FLAGS, *flags]
    subprocess.run(call, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    folder, state = run.folder / "run/snapshots", run.load()["callbacks"]["Snapshots"]
    assert len(list(folder.iterdir())) == 4
    saved = load_file(folder / "step_0000004_0.1.safetensors")
    assert same(saved, {k: v.half() for k, v in state["0.1"]["average"].items()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": -1}, r"snapshots\.every_n_steps: -1; expected at least 0"),
        ({"every_n_steps": 1, "widths": [0.1, 0.1]}, r"snapshots\.widths: .*different"),
        ({"every_n_steps": 1, "widths": [0.5]}, r"width: 0\.5"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Snapshots(**arguments)
