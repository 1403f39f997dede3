"""The steps that gpu.py measures and trains with, and their rates: its part bench."""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from bench import Row, fill, write
from network_speed import rate
from scaling_check import pass_of
from scaling_counts import batch, model
from speed_peers import WHAT, beside, check_alike, of_diffusers, of_lucidrains
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion.cli.flags import allow_tf32
from diffusion.guidance import ClassifierFree
from diffusion.networks.compiled import compile_in_place
from diffusion.noise import Purpose, SeededNoise, Use
from diffusion.pipeline import Pipeline
from diffusion.sampler import Sampler
from diffusion.step import UniPC

CONFIGS = ("configs/flow_emoji.yaml", "configs/text/transformer.yaml")
TEXTS = ("a google emoji of a fox", "a twitter emoji of a red heart", "")
PRECISIONS = {"float32": torch.float32, "TF32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = {"ddpm_cifar10": 128, "adm_imagenet64": 64, "adm_imagenet256": 8, "GLIDE": 4}


class Step:
    """A training step of `CONFIGS`, and pictures of it, on some device.

    Args:
        device: The device.
        n: The batch.
    """

    def __init__(self, device: str, n: int) -> None:
        torch.manual_seed(0)
        self.model = Pipeline.from_config(*CONFIGS).system
        with torch.no_grad():
            for parameter in self.model.denoiser.network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))  # some begin at 0
        self.n, self.device = n, torch.device(device)
        self.model.to(device).train()
        self.x_0 = SeededNoise(0, range(n), device).normal((3, 32, 32)).clamp(-1, 1)
        self.cond = self.model.network_condition({"text": [TEXTS[i % 3] for i in range(n)]})
        found = self.model.configure_optimizers()
        self.optimizer = found["optimizer"] if isinstance(found, dict) else found
        self.number = 0

    def loss(self) -> Tensor:
        """Returns the next step's loss."""
        self.number += 1
        numbers = range(self.number << 32, (self.number << 32) + self.n)
        noise = SeededNoise(0, numbers, self.device, Use.TRAINING)
        cond = self.cond.drop(0.1, noise=noise.of(Purpose.FORGETTING))
        t, eps = self.model.objective.draw(self.model.process, self.x_0, noise)
        return self.model.objective(self.model.denoiser, self.x_0, cond, t, eps).mean()

    def __call__(self) -> None:
        """Trains for a step."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    @torch.no_grad()
    def draw(self) -> Tensor:
        """Returns pictures, guided."""
        self.model.denoiser.eval()
        sampler = Sampler(UniPC(), 4, [ClassifierFree(3.0)])
        noise = SeededNoise(0, range(self.n), self.device)
        x_T, cond = noise.normal((3, 32, 32)), self.cond
        return sampler(self.model.denoiser, self.model.process, x_T, cond, noise)


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns FLOP/s of a matrix product."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return rate(lambda: a @ b, 1, 3, device) * 2 * side**3


def figures(
    run: Callable[[], None], n: int, flops: int, dtype: torch.dtype, device: torch.device
) -> Row:
    """Returns what a step of n pictures takes, whose FLOPs are known; the first one apart."""
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    images = rate(run, n, 3, device)
    held = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    done = flops / n * images
    return {
        "images_per_second": round(images, 1),
        "first_step_seconds": round(first, 1),
        "peak_GiB": round(held, 2),
        "TFLOPs": round(done / 1e12, 3),
        "share_of_matmul_peak": round(done / peak(device, dtype), 4),
    }


def step_rate(args: argparse.Namespace, name: str, compiles: bool) -> Row:
    """Returns the figures of a training step with its optimizer."""
    allow_tf32(name != "float32")
    step, dtype = Step(args.device, args.batch), PRECISIONS[name]

    def run() -> None:
        with torch.autocast(args.device, dtype, enabled=dtype != torch.float32):
            step()

    with FlopCounterMode(display=False) as counter:
        step.loss().backward()
    if compiles:
        compile_in_place(step.model.denoiser.network)
    return figures(run, args.batch, counter.get_total_flops(), dtype, step.device)


def pass_rate(args: argparse.Namespace, name: str, n: int, compiles: bool) -> Row:
    """Returns the figures of a forward and a backward pass in bfloat16."""
    allow_tf32(True)
    device = torch.device(args.device)
    torch.manual_seed(0)
    with device:
        network = model(name)[0].to(memory_format=torch.channels_last)
        (x, t), conditions = batch(network, n)

    def run() -> None:
        with torch.autocast(args.device, torch.bfloat16):
            pass_of(network, (x, t), conditions)

    with FlopCounterMode(display=False) as counter:
        run()
    if compiles:
        compile_in_place(network)
    return figures(run, n, counter.get_total_flops(), torch.bfloat16, device)


def compiled_ways(ways: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those that are compiled beside each other, whose networks it compiles."""
    found = dict[str, object]()
    for way, one in ways.items():
        if "default" not in way:
            network = one.network
            compile_in_place(network) if way == "ours" else network.compile()
            found[f"{way}, compiled"] = one
    return found


def peer_rows(args: argparse.Namespace, device: str) -> None:
    """Writes steps, passes and DDIM beside other packages: TF32, bfloat16, then compiled."""
    torch.manual_seed(0)
    rows = list[Row]()
    x_0 = torch.randn(args.batch, 3, 32, 32, device=args.device).clamp(-1, 1)
    shape = {"channels": 64, "groups": 16}
    for find in (partial(of_diffusers, shape, x_0, False), partial(of_lucidrains, 64, x_0)):
        allow_tf32(False)
        name, ways = find()
        if not ways:
            continue
        check_alike(ways)
        allow_tf32(True)
        measured = partial(beside, repeats=7, times=args.times, network=name, device=device)
        rows += measured(ways, precision="TF32", compiled="False")
        halved = partial(measured, half=args.device, precision="bfloat16")
        rows += halved(ways, compiled="False")
        write(args.to / "peers.csv", rows)
        if args.device == "cuda":
            try:
                rows += halved(compiled_ways(ways), only=WHAT[:1], compiled="True")
            except Exception as error:  # of a package that torch.compile does not take
                print(f"compiled, {name}: {error}"[:500])
            write(args.to / "peers.csv", rows)


def bench(args: argparse.Namespace) -> None:
    """Measures what the tables do not have, as long as there is time."""
    end = time.monotonic() + args.seconds
    cuda = args.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else "cpu"
    sizes = SIZES if cuda else {"quickstart": args.batch}
    cells: list[tuple[Row, Callable[[], Row]]] = []
    for name, compiles in [*((x, False) for x in PRECISIONS), *[("bfloat16", True)] * cuda]:
        key: Row = {"what": "step", "model": "flow_emoji", "batch": args.batch, "precision": name}
        cells.append((key | {"compiled": str(compiles)}, partial(step_rate, args, name, compiles)))
    for compiles in (False, True)[: 1 + cuda]:
        for name, n in list(sizes.items())[: 1 if compiles else None]:
            key = {"what": "pass", "model": name, "batch": n, "precision": "bfloat16"}
            run = partial(pass_rate, args, name, n, compiles)
            cells.append((key | {"compiled": str(compiles)}, run))
    for key, run in cells:
        if time.monotonic() < end:
            print(fill(args.to / "bench.csv", [(key | {"device": device}, run)])[-1], flush=True)
            torch.cuda.empty_cache()
    if not (args.to / "peers.csv").exists() and time.monotonic() < end:
        peer_rows(args, device)
