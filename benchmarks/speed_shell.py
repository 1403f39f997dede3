"""What speed.py measures of `fit`, beside a bare loop, and of guidance."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from bench import Row
from lightning.pytorch import Callback
from speed import Ways, compared, in_turn, timed
from torch import nn

from diffusion.cli.main import main as diffusion
from diffusion.condition import Condition
from diffusion.data import Digits, FashionMNIST, Images
from diffusion.guidance import ClassifierFree
from diffusion.pipeline import Pipeline
from diffusion.systems.averages import EMA

LAST = torch.channels_last


class Loop:
    """A bare loop around a configuration's network and optimizer: V, L_simple, labels forgotten."""

    def __init__(self, config: str, data: Images) -> None:
        self.system: Any = Pipeline.from_config(config).system.train()
        found = self.system.configure_optimizers()
        self.optimizer = found["optimizer"] if isinstance(found, dict) else found
        self.x = torch.randn(4096, *data.shape).clamp(-1, 1)
        self.label = torch.arange(4096) % 10
        process = self.system.process
        self.alpha, self.sigma = process.alpha.float(), process.sigma.float()
        self.n = data.batch_size

    def __call__(self, steps: int = 1) -> None:
        """Trains."""
        network = self.system.denoiser.network
        for _ in range(steps):
            at = torch.randint(0, 4096, (self.n,))
            x_0, label, t = self.x[at], self.label[at], torch.randint(1, 1001, (self.n,))
            label = torch.where(torch.rand(self.n) < 0.1, 10, label)
            eps = torch.randn_like(x_0)
            alpha, sigma = (x[t][:, None, None, None] for x in (self.alpha, self.sigma))
            x_t = (alpha * x_0 + sigma * eps).contiguous(memory_format=LAST)
            self.optimizer.zero_grad()
            F.mse_loss(network(x_t, t, label=label), alpha * eps - sigma * x_0).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            self.optimizer.step()


class Beside(Callback):
    """After each step of `fit`, a step of the bare loop, so that both meet the same machine.

    Attributes:
        loop: The bare loop.
        seconds: Of each step of both.
    """

    loop: Loop
    seconds: dict[str, list[float]]
    before: float | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Takes the time of the step that ended, trains the bare loop, takes its time."""
        ended = time.perf_counter()
        self.loop()
        now = time.perf_counter()
        if self.before is not None:
            self.seconds["bare loop"].append(now - ended)
            self.seconds["fit"].append(ended - self.before)
        self.before = now


def fit_beside(config: str, root: str, steps: int, loop: Loop) -> dict[str, list[float]]:
    """Returns the seconds of steps of `fit` and of the loop, one after the other."""
    Beside.loop, Beside.seconds = loop, {"bare loop": [], "fit": []}
    with tempfile.TemporaryDirectory() as folder:
        more = ("--data.root", root, "--data.download", "false") if "fashion" in config else ()
        diffusion([
            *("fit", "--config", config, "--wandb", "off", *more),
            *("--trainer.max_steps", str(steps), "--model.lr_scheduler.total", "100000"),
            *("--trainer.val_check_interval", str(steps + 1), "--trainer.limit_val_batches", "0"),
            *("--samples.every_n_steps", str(steps + 1), "--trainer.accelerator", "cpu"),
            *("--trainer.log_every_n_steps", "10", "--trainer.default_root_dir", folder),
            *("--trainer.enable_progress_bar", "false", "--trainer.gradient_clip_val", "1.0"),
            *("--trainer.callbacks+", f"{__name__}.Beside"),
        ])  # fmt: skip
    return Beside.seconds


def shell(args: argparse.Namespace) -> list[Row]:
    """Returns rows of `fit` beside a bare loop, and of what it consists of."""
    rows = list[Row]()
    for name, data in (("quickstart", Digits()), ("ddpm_fashion", FashionMNIST(root=args.root))):
        if isinstance(data, FashionMNIST) and not Path(args.root).exists():
            print(f"ddpm_fashion is left out: there is no {args.root}")
            continue
        data.batch_size, config = 64, f"configs/{name}.yaml"
        loop = Loop(config, data)
        loop(2)
        seconds = fit_beside(config, args.root, args.steps, loop)
        about = {"part": "shell", "network": name}
        rows += compared(seconds, data.batch_size, what="a step of training", **about)
        ema, ways = EMA(), dict[str, Callable[[], object]]()
        ema.on_train_start(None, loop.system)  # pyright: ignore[reportArgumentType]
        batches = endless(data)

        def average(ema: EMA = ema, system: Any = loop.system) -> None:
            now: Any = SimpleNamespace(global_step=ema.steps + 1)
            ema.on_train_batch_end(now, system, None, None, 0)

        ways = {"bare loop": loop, "EMA alone": average, "loader alone": lambda b=batches: next(b)}
        found = in_turn(ways, args.repeats)
        rows += compared(found, data.batch_size, what="a part of it", **about)
    return rows


def endless(data: Images) -> Iterator[object]:
    """Yields batches of training."""
    data.prepare_data()
    data.setup("fit")
    while True:
        yield from data.train_dataloader()


def guidance(args: argparse.Namespace) -> list[Row]:
    """Returns rows of classifier-free guidance for B beside a pass over 2B, and over B."""
    rows = list[Row]()
    for name in ("quickstart", "ddpm_fashion"):
        system: Any = Pipeline.from_config(f"configs/{name}.yaml").system.eval()
        side, n = system.denoiser.network.image_size, 2 * args.batch
        x, t = torch.randn(2 * n, 1, side, side), torch.tensor(500)
        label = torch.arange(2 * n) % 10
        cond, both = (Condition({"label": label[:m]}, {"label": 10}) for m in (n, 2 * n))
        inside, outside = (
            ClassifierFree(3.0, interval=at)(system.denoiser) for at in (None, (1, 400))
        )
        ways: Ways = {
            "a pass over 2B": lambda x=x, d=system.denoiser, c=both: d(x, t, c),  # noqa: B023
            "guided B": lambda x=x[:n], d=inside, c=cond: d(x, t, c),  # noqa: B023
            "guided B, outside its interval": lambda x=x[:n], d=outside, c=cond: d(x, t, c),  # noqa: B023
        }
        ways = {k: torch.inference_mode()(run) for k, run in ways.items()}
        about: dict[str, Any] = {"part": "guidance", "network": name, "what": "a step of a sampler"}
        rows += timed(ways, args.repeats, n, **about)
    return rows
