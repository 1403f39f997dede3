"""What is said before training and at the end, and the bar in between."""

import os
import shlex
import signal
import threading

import pytest
import torch
from PIL import Image

from diffusion.callbacks.bar import Bar
from diffusion.callbacks.monitor import Monitor
from diffusion.callbacks.summary import again


@pytest.fixture
def said(run, capsys):
    """Runs a command, and returns the lines on the screen."""

    def call(*args):
        capsys.readouterr()
        run(*args)
        return capsys.readouterr().out.splitlines()

    return call


def test_a_run_begins_with_a_summary_and_ends_with_where_everything_is(said):
    lines = said("fit", "--config", "tiny.yaml")
    (data,) = [x for x in lines if x.startswith("data ")]
    assert "Digits: 1,297 train, 500 val, 500 test; 1 x 8 x 8" in data
    assert "training pictures 0 128, 1 131" in data
    assert any("Diffusion: 10,945 parameters" in x for x in lines)
    assert any("cpu x 1, 32-true; 8 samples a step" in x for x in lines)
    assert any(x.startswith("run ") and "steps 0 … 4" in x for x in lines)
    assert any(x.startswith("run/checkpoints/last.ckpt ") for x in lines)
    assert any("diffusion test --ckpt_path run/checkpoints/last.ckpt" in x for x in lines)
    assert not any("goes on with" in x for x in lines)


def test_what_is_left_out_stands_in_the_summary(said, run, tiny, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        Image.effect_noise((9, 9), 50).save(folder / f"{i}.png")
    (folder / "scan.tif").write_bytes(b"II*")
    tiny["model"]["p_uncond"] = 0.0
    tiny["model"]["network"]["init_args"]["num_classes"] = None
    arguments = {"root": str(folder), "size": 8, "channels": 1, "batch_size": 8}
    tiny["data"] = {"class_path": "ImageFolder", "init_args": arguments}
    lines = said("fit", "--config", run.write("photos.yaml", tiny))
    assert any(x.startswith("data ") and ".tif" in x for x in lines), lines


def test_figures_are_printed_once(said, fitted):
    lines = said("test", "--ckpt_path", fitted.last)
    for name in ("fd_lenet@20", "label_accuracy@20", "nfe"):
        assert sum(f" {name} " in x for x in lines) == 1, lines
    assert any("metrics.json" in x for x in lines)
    lines = said("validate", "--ckpt_path", fitted.last, "--metrics.validate=true")
    for name in ("loss", "fd_lenet@20", "nfe"):
        assert sum(x.startswith(f"val/{name} ") for x in lines) == 1, lines


def test_a_command_is_said_again_as_a_shell_takes_it():
    typed = ["fit", "--config", "a b.yaml", "--ckpt_path", "x.ckpt", "--trainer.max_steps=9"]
    line = "diffusion fit --config 'a b.yaml' --trainer.max_steps=9 --ckpt_path last"
    assert again(typed) == again([*typed[:3], "--ckpt_path=x.ckpt", typed[-1]]) == line
    assert shlex.split(line)[-2:] == ["--ckpt_path", "last"]


def test_an_interrupted_run_says_how_to_go_on_and_draws_its_loss(said, run, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr("diffusion.plots.pictures.curve", lambda *args: drawn.append(args))

    def interrupt(self, trainer, *_):
        if trainer.global_step == 2 and not drawn:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(5)

    monkeypatch.setattr(Monitor, "on_train_batch_start", interrupt)
    with pytest.raises(SystemExit) as end:
        said("fit", "--config", "tiny.yaml", "--trainer.max_steps", "20")
    lines = capsys.readouterr().out.splitlines()
    again = "diffusion fit --config tiny.yaml --trainer.max_steps 20 --ckpt_path last"
    assert end.value.code == 130
    assert any(again in x for x in lines), lines
    assert len(drawn) == 1
    run(*again.split()[1:])
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 20


class Trainer:
    datamodule = None
    max_steps, max_epochs, num_training_batches, accumulate_grad_batches = 50, -1, float("inf"), 2
    global_step, is_global_zero, num_val_batches, log_every_n_steps = 40, True, 3, 1


def test_the_bar_counts_steps_from_where_training_is_resumed(monkeypatch):
    monkeypatch.setattr(Bar, "get_metrics", lambda *_: {"loss": 0.25, "v_num": 3})
    bar, trainer = Bar(), Trainer()
    bar.disable()
    bar.on_train_start(trainer, None)
    bar.enable()
    (task,) = bar.shown.tasks
    assert (task.description, task.completed, task.total) == ("Training", 40, 50)
    trainer.global_step = 42
    for _ in range(2):  # micro-batches of one step
        bar.on_train_batch_end(trainer, None, None, None, 0)
    assert (task.completed, task.fields["note"]) == (42, "loss 0.25")
    bar.on_validation_start(trainer, None)
    assert [t.description for t in bar.shown.tasks] == ["Training", "Validating"]
    bar.on_validation_batch_end()
    bar.on_validation_end(trainer, None)
    assert len(bar.shown.tasks) == 1
    bar.on_train_end(trainer, None)
    assert bar.shown is None


def test_a_run_with_all_its_steps_says_that_nothing_was_trained(said, run):
    run.fit()
    lines = said("fit", "--config=tiny.yaml", "--ckpt_path=last")
    (line,) = [x for x in lines if x.startswith("trainer.max_steps ")]
    assert (
        line.split(None, 1)[1] == "4; 4 steps are trained already; expected more than that to go on"
    )
    assert any("diffusion test --ckpt_path run/checkpoints/last.ckpt" in x for x in lines)


def test_an_epoch_of_a_few_batches_ends_the_schedule_where_training_ends(run, said):
    flags = ("--trainer.max_steps=-1", "--trainer.max_epochs=2", "--trainer.limit_train_batches=3")
    schedule = ("--model.lr_scheduler=Warmup", "--model.lr_scheduler.total=6")
    lines = said("fit", "--config=tiny.yaml", *flags, *schedule)
    assert any(x.startswith("run ") and "steps 0 … 6" in x for x in lines)
    assert run.load()["global_step"] == 6
