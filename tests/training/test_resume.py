import os
import signal
import subprocess
import sys
import time

import pytest

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
    from diffusion.training.module import Diffusion

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
from diffusion.training import cli
make = torch.save
def save(checkpoint, file):
    make(checkpoint, file)
    if checkpoint["global_step"] == 4:
        file.flush()
        print("writing", flush=True)
        time.sleep(600)
torch.save = save
cli.main(sys.argv[1:])
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
