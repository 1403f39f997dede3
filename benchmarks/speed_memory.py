"""What speed.py measures of memory: peaks of training and of a sampler, a process each."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from bench import Row
from speed import timed
from speed_peers import Diffusers, Lucidrains, Ours, adam, trained

from diffusion.networks import UNet

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# A mapping of its own for each tensor: what is freed is given back at once, so that a peak is what
# is needed at one time, and not what the allocator keeps.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
WAYS = ("ours", "ours, checkpointing", "diffusers, best", "diffusers, checkpointing")
PEER = "denoising-diffusion-pytorch, best"
NETWORKS = {"UNet": WAYS, "LinearUNet": ("ours", PEER)}


def resident(what: str) -> float:
    """Returns VmRSS, memory that is resident now, or VmHWM, its peak, in MB."""
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(x.split()[1]) for x in lines if x.startswith(what)) / 1e6


def build(network: str, way: str, channels: int, size: int, batch: int) -> Any:
    """Returns a network with what trains it and draws with it, of equal weights in all ways."""
    torch.manual_seed(0)
    x_0 = torch.randn(batch, 3, size, size).clamp(-1, 1)
    if network == "LinearUNet":
        theirs = Lucidrains(import_module("denoising_diffusion_pytorch"), channels, x_0, True)
        return theirs if way == PEER else Ours(theirs.as_ours(), x_0)
    again = "checkpointing" in way
    shape: Any = {"channels": channels, "groups": min(32, channels // 4)}
    made = UNet(size, 3, attention=(size // 2,), checkpointing=again, **shape)
    if "ours" in way:
        return Ours(made, x_0)
    theirs = Diffusers(made, x_0, best=True)
    if again:
        theirs.network.enable_gradient_checkpointing()
    return theirs


def peak(network: str, way: str, channels: int, size: int, batch: int) -> dict[str, float]:
    """Returns MB that drawing a batch, and two steps of training, need beyond the network."""
    one, found = build(network, way, channels, size, batch), dict[str, float]()
    step = trained(one.loss, adam(one.network, fused=True))
    for what, run, runs in (("draw", lambda: one.draw(batch), 1), ("step", step, 2)):
        one.network.train(what == "step")
        before = resident("VmRSS")
        CLEAR.write_text("5")  # the peak begins anew
        for _ in range(runs):
            run()
        found[what] = resident("VmHWM") - before
    return found


def measured(jobs: Sequence[tuple[Any, ...]]) -> list[dict[str, float]]:
    """Returns the peaks of several networks, each of a process that has only imported."""
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(peak, jobs, chunksize=1)


def memory(args: argparse.Namespace) -> list[Row]:
    """Returns rows of the peaks, and of what checkpointing costs in time."""
    rows, networks = list[Row](), dict(NETWORKS)
    if not CLEAR.exists():
        print("memory is left out: it is read from Linux's /proc")
        return rows
    try:
        import_module("denoising_diffusion_pytorch")
    except ImportError as error:
        del networks["LinearUNet"]
        print(f"denoising-diffusion-pytorch is left out: {error}")
    shapes = [(args.size, n * args.batch // 2) for n in (1, 2, 4)]
    shapes.append((2 * args.size, args.batch // 2))
    jobs = [
        (network, way, args.channels, *shape)
        for network, ways in networks.items()
        for shape in shapes
        for way in ways
    ]
    command = [sys.executable, __file__, str(args.threads), json.dumps(jobs)]
    env = {k: v for k, v in os.environ.items() if "MALLOC" not in k} | MALLOC
    found = json.loads(subprocess.check_output(command, env=env, text=True).splitlines()[-1])
    for (network, way, _, size, batch), peaks in zip(jobs, found):
        row: Row = {"part": "memory", "network": network, "way": way, "size": size}
        rows.append(row | {"batch": batch} | {k: f"{v:.1f}" for k, v in peaks.items()})
    twins = {way: build("UNet", way, args.channels, args.size, args.batch) for way in WAYS}
    steps = {way: trained(one.loss, adam(one.network, True)) for way, one in twins.items()}
    return rows + timed(steps, args.repeats, args.batch, part="checkpointing", what="training step")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(measured(json.loads(sys.argv[2]))))
