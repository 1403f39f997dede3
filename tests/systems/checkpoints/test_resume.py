import copy
import csv
import os
import signal
import subprocess
import sys
import time
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, PolynomialLR, StepLR

from diffusion.common.schedules import Warmup, most
from diffusion.systems.checkpoints.resume import adopt

KEYS = ("state_dict", "raw_state_dict", "optimizer_states", "lr_schedulers", "global_step")

CASES = {
    "plain": [],
    "in the middle of an interval": ["--trainer.val_check_interval=4", "--samples.every_n_steps=4"],
    "accumulating": ["--trainer.accumulate_grad_batches=2"],
    "two workers": ["--data.num_workers=2", "--data.flip=true"],
    "a schedule": [
        "--model.lr_scheduler=Warmup",
        "--model.lr_scheduler.warmup=2",
        "--model.lr_scheduler.total=9",
    ],
}


@pytest.mark.parametrize("flags", CASES.values(), ids=list(CASES))
def test_a_resumed_run_ends_in_the_same_weights(run, same, flags):
    run.fit(*flags, "--trainer.max_steps=6", "--trainer.default_root_dir=whole")
    run.fit(*flags, "--trainer.max_steps=3")
    run.fit(*flags, "--trainer.max_steps=6", "--ckpt_path=last")
    one, other = run.load(), run.load("whole/checkpoints/last.ckpt")
    for key in KEYS:
        assert same(one[key], other[key]), key


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_run_interrupted_between_micro_batches_ends_in_the_same_weights(
    run, same, accumulate, monkeypatch
):
    from diffusion.systems.diffusion import Diffusion

    flags = [f"--trainer.accumulate_grad_batches={accumulate}", "--trainer.max_steps=6"]
    run.fit(*flags, "--trainer.default_root_dir=whole")
    step, seen = Diffusion.training_step, []

    def fail(self, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 3 * accumulate:
            raise KeyError("interrupted")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Diffusion, "training_step", fail)
        with pytest.raises(KeyError):
            run.fit(*flags)
    assert run.load()["global_step"] == 2
    run.fit(*flags, "--ckpt_path=last")
    one, other = run.load(), run.load("whole/checkpoints/last.ckpt")
    for key in KEYS:
        assert same(one[key], other[key]), key


def rates(run, name="run", figure="train/lr"):
    """The learning rates, or what else was logged, by step, of all calls."""
    found = {}
    for file in sorted((run.folder / name).glob("csv/version_*/metrics.csv")):
        for row in csv.DictReader(file.open()):
            if row.get(figure):
                found[int(row["step"])] = float(row[figure])
    return found


def test_options_given_anew_take_effect_and_moments_are_kept(run, same):
    run.fit("--trainer.max_steps=2")
    before = run.load()["optimizer_states"][0]
    (run.folder / "run/checkpoints/two.ckpt").write_bytes(
        (run.folder / "run/checkpoints/last.ckpt").read_bytes()
    )
    options = ("--model.optimizer.lr=0", "--model.optimizer.weight_decay=0.5")
    run.fit("--ckpt_path=last", "--trainer.max_steps=3", "--trainer.log_every_n_steps=1", *options)
    after = run.load()
    (group,) = after["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (0, 0.5)
    assert rates(run)[3] == 0
    assert "lr: 0" in after["config"]
    weights = run.load("run/checkpoints/two.ckpt")["raw_state_dict"]
    assert same(after["raw_state_dict"], weights)  # a rate of 0 moves nothing
    for i, state in before["state"].items():
        there = after["optimizer_states"][0]["state"][i]
        assert there["step"] == state["step"] + 1 == 3
        assert 0 < there["exp_avg_sq"].sum() != state["exp_avg_sq"].sum()


def test_nothing_but_the_options_changes(run, same):
    """Half the rate for the third step moves half as far."""
    run.fit("--trainer.max_steps=2")
    start = run.load()["raw_state_dict"]
    moved = []
    for lr in (1e-3, 5e-4):
        flags = ("--trainer.max_steps=3", f"--trainer.default_root_dir=lr{lr}")
        run("fit", "--ckpt_path", run.last, f"--model.optimizer.lr={lr}", *flags)
        weights = run.load(f"lr{lr}/checkpoints/last.ckpt")["raw_state_dict"]
        moved.append(torch.cat([(weights[k] - start[k]).flatten() for k in start]))
    torch.testing.assert_close(moved[1] * 2, moved[0], rtol=1e-3, atol=2e-7)


def adam(lr=0.1, **options):
    return partial(torch.optim.Adam, lr=lr, **options)


SCHEDULES = {
    "warmup": lambda o: Warmup(o, warmup=2),
    "total": lambda o: Warmup(o, warmup=2, total=9),
    "step": lambda o: StepLR(o, 2, gamma=0.5),
    "cosine": lambda o: CosineAnnealingLR(o, T_max=20),
    "cycle": lambda o: OneCycleLR(o, max_lr=0.3, total_steps=20),
    "none": None,
}


def trained(schedule, steps, make):
    """An optimizer after some steps with a schedule, and what a checkpoint has of both."""
    p = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = make([p])
    moves = schedule and schedule(optimizer)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
        if moves:
            moves.step()
    schedules = [copy.deepcopy(moves.state_dict())] if moves else []
    states = [copy.deepcopy(optimizer.state_dict())]
    return {"optimizer_states": states, "lr_schedulers": schedules, "global_step": steps}


@pytest.mark.parametrize("then", SCHEDULES)
@pytest.mark.parametrize("first", SCHEDULES)
def test_a_schedule_goes_on_as_if_it_had_always_been_this_one(first, then, same):
    found = trained(SCHEDULES[first], 5, adam(0.1))
    make = adam(0.2, weight_decay=0.5)
    always = trained(SCHEDULES[then], 5, make)
    moments = copy.deepcopy(found["optimizer_states"][0]["state"])
    optimizer = make([torch.nn.Parameter(torch.ones(3, 2))])
    schedules = [SCHEDULES[then](optimizer)] if SCHEDULES[then] else []
    adopt(found, [optimizer], [LRSchedulerConfig(s, interval="step") for s in schedules])
    assert same(found["optimizer_states"][0]["state"], moments)
    groups = [x["optimizer_states"][0]["param_groups"] for x in (found, always)]
    assert same(*groups)
    for a, b in zip(found["lr_schedulers"], always["lr_schedulers"], strict=True):
        for key in ("last_epoch", "_step_count", "base_lrs", "_last_lr"):
            assert a[key] == b[key]


@pytest.mark.parametrize(
    "make",
    [
        adam(),
        adam(amsgrad=True),
        partial(torch.optim.SGD, lr=0.1),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        partial(torch.optim.RMSprop, momentum=0.9, centered=True),
        torch.optim.Adafactor,
        torch.optim.Adagrad,
        torch.optim.NAdam,
    ],
)
def test_an_optimizer_keeps_what_it_remembers_itself(make, same):
    found = trained(None, 3, make)
    before = copy.deepcopy(found)
    adopt(found, [make([torch.nn.Parameter(torch.ones(3, 2))])], [])
    assert same(found, before)


def test_another_optimizer_begins_anew_and_says_so(run):
    run.fit("--trainer.max_steps=2")
    flags = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.5")
    with pytest.warns(UserWarning, match=r"model\.optimizer: SGD .* begins anew"):
        run.fit(
            *flags, "--model.optimizer.momentum=0.9", "--trainer.max_steps=3", "--ckpt_path=last"
        )
    (saved,) = run.load()["optimizer_states"]
    assert saved["param_groups"][0]["lr"] == 0.5
    assert all(state.keys() == {"momentum_buffer"} for state in saved["state"].values())
    flags = ("--model.optimizer=torch.optim.Adam", "--model.optimizer.amsgrad=true")
    with pytest.warns(UserWarning, match=r"model\.optimizer: Adam .* begins anew"):
        run.fit(*flags, "--trainer.max_steps=4", "--ckpt_path=last")
    assert all(s["step"] == 1 for s in run.load()["optimizer_states"][0]["state"].values())


def test_moments_are_kept_by_an_optimizer_that_has_the_same(run, recwarn):
    run.fit("--trainer.max_steps=2")
    run.fit("--model.optimizer=torch.optim.AdamW", "--trainer.max_steps=3", "--ckpt_path=last")
    assert all(s["step"] == 3 for s in run.load()["optimizer_states"][0]["state"].values())
    assert not any("begins anew" in str(w.message) for w in recwarn)


def broken(checkpoint, how):
    (state,) = checkpoint["optimizer_states"]
    if how == "weights only":
        del checkpoint["optimizer_states"]
    elif how == "fewer":
        state["param_groups"][0]["params"].pop()
    else:
        state["state"][0]["exp_avg"] = torch.zeros(3)
    return checkpoint


@pytest.mark.parametrize("how", ["weights only", "fewer", "shape"])
def test_an_optimizer_of_another_model_is_refused_and_nothing_written(run, fitted, refused, how):
    torch.save(broken(fitted.load(), how), run.folder / "broken.ckpt")
    line = refused("fit", "--ckpt_path=broken.ckpt", "--trainer.max_steps=9")
    assert line.startswith("ckpt_path: ")
    assert not list(run.folder.glob("run/checkpoints/*"))


def test_what_fails_before_the_first_step_leaves_the_checkpoint_as_it_is(run, monkeypatch):
    from diffusion.systems.diffusion import Diffusion

    run.fit("--trainer.max_steps=2")
    before = (run.folder / "run/checkpoints/last.ckpt").read_bytes()

    def fail(self, batch, batch_idx):
        raise KeyError("failed")

    monkeypatch.setattr(Diffusion, "training_step", fail)
    with pytest.raises(KeyError):
        run.fit("--ckpt_path=last", "--trainer.max_steps=4", "--model.optimizer.lr=0.5")
    assert (run.folder / "run/checkpoints/last.ckpt").read_bytes() == before


ENDS = {
    "warmup": partial(Warmup, total=6),
    "linear": partial(LinearLR, start_factor=1, end_factor=0, total_iters=6),
    "polynomial": partial(PolynomialLR, total_iters=6),
    "one cycle": partial(OneCycleLR, max_lr=0.1, total_steps=6),
    "cosine": partial(CosineAnnealingLR, T_max=6),
}


@pytest.mark.parametrize("schedule", ENDS.values(), ids=list(ENDS))
def test_how_many_steps_a_schedule_is_for(schedule):
    def make():
        return schedule(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]))

    assert [most(make, steps) for steps in (1, 5, 6, 7, 9)] == [None, None, None, 6, 6]


@pytest.mark.parametrize(
    "schedule", [Warmup, partial(Warmup, warmup=3), partial(StepLR, step_size=2)]
)
def test_a_schedule_without_end_is_for_any_number_of_steps(schedule):
    assert most(lambda: schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])), 20) is None


def test_a_schedule_that_ends_before_training_does_is_refused(run, refused):
    flags = ("--model.lr_scheduler=Warmup", "--model.lr_scheduler.total=3")
    line = refused("fit", "--config=tiny.yaml", *flags, "--trainer.max_steps=4")
    assert line.startswith("trainer.max_steps: 4; expected at most 3")
    assert not list(run.folder.glob("run/checkpoints/*.ckpt"))
    run.fit(*flags, "--trainer.max_steps=3")
    again = ("fit", "--config=tiny.yaml", "--trainer.max_steps=4", "--ckpt_path=last")
    assert refused(*again, *flags).startswith("trainer.max_steps: 4; expected at most 3")
    whole = [path.name for path in run.folder.glob("run/checkpoints/step_*")]
    assert whole == ["step_0000003.ckpt"]
    assert (run.folder / "run/checkpoints/last.ckpt").resolve().name == whole[0]


class Labels(L.Callback):
    """Notes what is trained on, by epoch."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.setdefault(trainer.current_epoch, []).append(batch["image"])

    @property
    def all(self):
        return torch.cat([x for epoch in self.seen.values() for x in epoch])


@pytest.fixture
def noted(run, extra):
    """Trains on the 1,297 pictures of Digits and returns what was seen."""

    note = extra(Labels())

    def fit(*flags):
        note.seen = {}
        run.fit("--trainer.max_steps=-1", "--trainer.limit_val_batches=1", *flags)
        return copy.copy(note)

    return fit


@pytest.mark.slow
def test_max_epochs_ends_after_a_pass_and_a_second_goes_on(run, noted):
    flags = ("--data.batch_size=256", "--trainer.accumulate_grad_batches=2")
    one = noted(*flags, "--trainer.max_epochs=1")
    assert [len(batches) for batches in one.seen.values()] == [4]  # of 5: in whole steps
    assert run.load()["global_step"] == 2
    assert run.load()["Digits"] == {"read": 1024}
    two = noted(*flags, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert run.load()["global_step"] == 4
    whole = noted(*flags, "--trainer.max_epochs=2", "--trainer.default_root_dir=whole")
    assert {e: len(batches) for e, batches in whole.seen.items()} == {0: 4, 1: 4}
    assert torch.equal(torch.cat([one.all, two.all]), whole.all)
    assert len(one.all[:1024].unique(dim=0)) > 1000  # some digits are the same


def test_a_run_goes_on_in_the_middle_of_an_epoch(run, noted, same):
    flags = ("--data.batch_size=256", "--trainer.check_val_every_n_epoch=1")
    flags += ("--trainer.val_check_interval=1.0", "--trainer.max_epochs=2")
    noted(*flags, "--trainer.default_root_dir=whole")
    noted(*flags, "--trainer.max_steps=3")
    rest = noted(*flags, "--ckpt_path=last")
    assert {e: len(batches) for e, batches in rest.seen.items()} == {0: 2, 1: 5}
    one, other = run.load(), run.load("whole/checkpoints/last.ckpt")
    for key in KEYS:
        assert same(one[key], other[key]), key
    validated = [steps(run, name, "val/loss") for name in ("run", "whole")]
    assert validated == [[4, 9], [4, 9]]  # Lightning's, from 0


def steps(run, name, figure):
    found = []
    for file in sorted((run.folder / name).glob("csv/version_*/metrics.csv")):
        found += [int(row["step"]) for row in csv.DictReader(file.open()) if row.get(figure)]
    return found


def test_overfitting_sees_the_same_batches(noted):
    flags = ("--trainer.overfit_batches=2", "--trainer.max_epochs=3")
    batches = noted(*flags).seen
    assert [len(batches[e]) for e in range(3)] == [2, 2, 2]
    assert all(torch.equal(batches[e][k], batches[0][k]) for e in (1, 2) for k in (0, 1))
    assert not torch.equal(batches[0][0], batches[0][1])


def test_limited_epochs(run, noted):
    flags = (
        "--trainer.limit_train_batches=0.25",
        "--data.batch_size=128",
        "--trainer.max_epochs=2",
    )
    note = noted(*flags)
    assert [len(batches) for batches in note.seen.values()] == [2, 2]
    assert run.load()["Digits"] == {"read": 512}


@pytest.mark.slow
def test_reading_goes_on_where_it_was_with_other_batches(run, noted):
    sizes = [(8, 1), (4, 3), (16, 2)]
    seen, step = [], 0
    for i, (size, accumulate) in enumerate(sizes):
        step += 2
        more = ["--ckpt_path=last"] if i else []
        flags = (f"--data.batch_size={size}", f"--trainer.accumulate_grad_batches={accumulate}")
        seen.append(noted(*flags, *more, f"--trainer.max_steps={step}").all)
    assert [len(x) for x in seen] == [2 * size * accumulate for size, accumulate in sizes]
    whole = noted("--data.batch_size=8", "--trainer.max_steps=13", "--trainer.default_root_dir=w")
    assert torch.equal(torch.cat(seen), whole.all)
    assert float(rates(run, figure="train/images")[6]) == 16 + 24 + 64


def test_an_older_checkpoint_goes_on_by_steps_and_says_so(run, noted):
    run.fit("--trainer.max_steps=2")
    older = run.load()
    del older["Digits"]
    torch.save(older, run.folder / "older.ckpt")
    with pytest.warns(UserWarning, match=r"ckpt_path: .* goes on after 16"):
        rest = noted("--ckpt_path=older.ckpt", "--trainer.max_steps=3")
    whole = noted("--trainer.max_steps=3", "--trainer.default_root_dir=whole")
    assert torch.equal(rest.all, whole.all[16:])


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_ends_in_the_same_weights(run, same, accumulate):
    flags = [
        "fit",
        "--config=tiny.yaml",
        f"--trainer.accumulate_grad_batches={accumulate}",
        "--trainer.max_steps=300",
        "--checkpoint.every_n_steps=7",
        "--trainer.val_check_interval=50",
        "--data.num_workers=1",
    ]
    command = [sys.executable, "-m", "diffusion", *flags]
    subprocess.run([*command, "--trainer.default_root_dir=whole"], check=True, env=environment())
    folder = run.folder / "run/checkpoints"
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        while not any(int(p.stem.split("_")[1]) > 60 for p in folder.glob("step_*.ckpt")):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run.load()["global_step"] < 300
    subprocess.run([*command, "--ckpt_path=last"], check=True, env=environment())
    one, other = run.load(), run.load("whole/checkpoints/last.ckpt")
    for key in KEYS:
        assert same(one[key], other[key]), key


SLOW = """
import sys, time, torch
from diffusion.cli import main
make = torch.save
def save(checkpoint, file):
    make(checkpoint, file)
    if checkpoint["global_step"] == 4:
        file.flush()
        print("writing", flush=True)
        time.sleep(600)
torch.save = save
main.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_run_killed_while_it_writes_goes_on_from_the_checkpoint_before(run, same):
    flags = (
        "--trainer.accumulate_grad_batches=2",
        "--checkpoint.every_n_steps=2",
        "--trainer.max_steps=6",
    )
    run.fit(*flags, "--trainer.default_root_dir=whole")
    run.fit(*flags[:2], "--trainer.max_steps=2")
    call = (sys.executable, "-c", SLOW, "fit", "--config=tiny.yaml", *flags, "--ckpt_path=last")
    process = subprocess.Popen(call, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert any("writing" in line for line in process.stdout)
    finally:
        process.kill()
        process.wait()
    folder = run.folder / "run/checkpoints"
    assert os.readlink(folder / "last.ckpt") == "step_0000002.ckpt"
    assert len(list(folder.glob(".step_0000004.part-*"))) == 1
    run.fit(*flags, "--ckpt_path=last")
    assert sorted(p.name for p in folder.glob("*.ckpt")) == ["last.ckpt", "step_0000006.ckpt"]
    one, other = run.load(), run.load("whole/checkpoints/last.ckpt")
    for key in KEYS:
        assert same(one[key], other[key]), key


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}
