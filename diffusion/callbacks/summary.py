"""What begins, in a few lines before training; and where everything is, at the end."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from rich import get_console

from diffusion.callbacks.metrics import Metrics
from diffusion.data import Images
from diffusion.systems.base import Scoring
from diffusion.systems.trainer import callbacks_of, data_of, training_steps

SHOWN = 12  # classes at most that are counted one by one
FILES = {
    "checkpoints/last.ckpt": "checkpoint, averaged weights first",
    "samples.png": "samples",
    "samples": "samples while it trained",
    "trajectory.png": "from noise to samples",
    "accuracy.png": "accuracy against t",
    "snapshots": "averages of two lengths, for `diffusion average`",
    "loss.png": "loss against images seen",
    "metrics.json": "figures, and what they depend on",
    "likelihood.json": "bits per dimension, by term",
    "card.html": "the evaluation card",
}


class Summary(L.Callback):
    """Prints what is about to be trained, on the first process.

    The data with its splits, classes and what was left out; the model with its parameters; the
    device; the run's folder and the steps.

    Attributes:
        began: Whether anything was trained, tested or drawn.
    """

    began = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called once everything is in place, and a checkpoint is restored."""
        self.began = True
        if trainer.is_global_zero:
            data = data_of(trainer)
            _print({"data": about_data(data), **about_run(trainer, pl_module, data)})
            for text in data.mentioned:
                _print({"data": text})

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Only notes that there will be something to say at the end."""
        self.began = True

    on_test_start = on_predict_start = on_validation_start

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says why nothing was trained, if nothing was."""
        end = training_steps(trainer)
        if not self.began and end is not None and trainer.global_step >= end:
            self.began = True
            if trainer.is_global_zero:
                text = f"{trainer.global_step:,} steps are trained already; expected more than that"
                _print({"trainer.max_steps": f"{end}; {text} to go on"})


def about_data(data: Images) -> str:
    """Returns the name, the splits with their sizes, the shape and the classes of a data module."""
    splits = ", ".join(f"{len(pictures):,} {name}" for name, pictures in data.sets().items())
    counts = data.class_counts("train")
    classes = "no classes"
    if counts and len(counts) > SHOWN:
        each = f"{min(counts):,} … {max(counts):,}"
        classes = f"{len(counts)} classes of {each} training pictures"
    elif counts:
        named = zip(data.classes or range(len(counts)), counts)
        classes = f"training pictures {', '.join(f'{name} {count:,}' for name, count in named)}"
    return f"{type(data).__name__}: {splits}; {' x '.join(map(str, data.shape))}; {classes}"


def about_run(trainer: L.Trainer, module: L.LightningModule, data: Images) -> dict[str, str]:
    """Returns the model's parameters, the device, the folder and the steps, each in a line."""
    every = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    part = "" if trained == every else f", {trained:,} of them trained"
    batch = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    device, end = f"{module.device.type} x {trainer.world_size}", training_steps(trainer)
    steps = f"{trainer.global_step:,} … {'without end' if end is None else f'{end:,}'}"
    return {
        "model": f"{type(module).__name__}: {every:,} parameters{part}",
        "device": f"{device}, {trainer.precision}; {batch} samples a step",
        "run": f"{trainer.default_root_dir}: steps {steps}",
    }


def at_the_end(trainer: L.Trainer, command: Sequence[str], figures: bool = False) -> None:
    """Prints what was measured and where everything is, and the command that goes on.

    Args:
        trainer: Of a command that ended, well or not.
        command: What the user typed after the program's name.
        figures: Whether to print what was logged, but for what `Metrics` has printed after a test.
    """
    shown = {name for c in callbacks_of(trainer) if isinstance(c, Metrics) for name in c.figures}
    logged = trainer.callback_metrics.items() if figures else ()
    _print({k: f"{float(v):.4g}" for k, v in logged if k.removeprefix("test/") not in shown})
    run = Path(trainer.default_root_dir)
    lines = {str(run / name): what for name, what in FILES.items() if (run / name).exists()}
    last = run / "checkpoints/last.ckpt"
    if command and command[0] == "fit" and last.exists():
        end = training_steps(trainer)
        if end is None or trainer.global_step < end:
            lines["goes on with"] = again(command)
        lines["measure"] = f"diffusion test --ckpt_path {shlex.quote(str(last))}"
        if not isinstance(trainer.lightning_module, Scoring):
            lines["draw"] = f"diffusion predict --ckpt_path {shlex.quote(str(last))}"
    _print(lines)


def again(command: Sequence[str]) -> str:
    """Returns the command that goes on with an interrupted one, to be typed into a shell."""
    kept, words = [], iter(command)
    for word in words:
        if word == "--ckpt_path":
            next(words, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    return f"diffusion {shlex.join([*kept, '--ckpt_path', 'last'])}"


def _print(lines: dict[str, str]) -> None:
    width = max(map(len, lines), default=0)
    for name, text in lines.items():
        line = f"{name:<{width}}  {text}"
        get_console().print(line, markup=False, highlight=False, soft_wrap=True)
