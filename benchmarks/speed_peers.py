"""Networks beside the same ones of other packages, and beside bare loops.

speed.py measures them on a processor, gpu_rates.py on a card.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from bench import Row
from speed import timed
from speed_packages import DRAWN, LAST, Bare, Diffusers, Lucidrains, Ours
from torch import Tensor, nn

from diffusion.networks import UNet

WHAT = ("training step", "forward", f"DDIM, {DRAWN} steps")


def trained(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Returns a step of training."""

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def adam(network: nn.Module, fused: bool) -> torch.optim.Optimizer:
    """Returns the optimizer, which moves no weight, so that all rounds are alike."""
    return torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=0.0, fused=fused or None)


def inputs(ways: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Returns what the networks are called with."""
    x = torch.randn_like(next(iter(ways.values())).x_0).contiguous(memory_format=LAST)
    return x, torch.randint(1, 1001, (len(x),), device=x.device)


def caller(one: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what a way does with x_t and t, counted as ours are."""
    return one if isinstance(one, Diffusers | Lucidrains) else one.network


@torch.no_grad()
def check_alike(ways: Mapping[str, Any]) -> None:
    """Compares outputs before anything is timed.

    Raises:
        AssertionError: If they differ.
    """
    x, t = inputs(ways)
    for one in ways.values():
        one.network.eval()
    first = caller(next(iter(ways.values())))(x, t)
    for one in ways.values():
        torch.testing.assert_close(caller(one)(x, t), first, atol=1e-3, rtol=1e-3)


def beside(
    ways: Mapping[str, Any],
    repeats: int,
    peak: float = 0.0,
    half: str = "",
    times: int = 1,
    only: Sequence[str] = WHAT,
    **about: str,
) -> list[Row]:
    """Returns the rows of a network: whoever is called "… default" has no fused optimizer.

    Args:
        ways: The first is ours.
        repeats: Rounds.
        peak: FLOP/s of the processor; with 0 no share of it is given.
        half: The device whose autocast to bfloat16 is used; by default none is.
        times: Of each in a round.
        only: Which of `WHAT`.
        **about: What every row says.
    """
    x, t = inputs(ways)
    n, images = max(1, len(x) // 2), [len(x), len(x), max(1, len(x) // 2)]
    found: list[dict[str, Callable[[], object]]] = [{}, {}, {}]
    for place, (way, one) in enumerate(ways.items()):
        like = x if "default" not in way or place == 0 else x.contiguous()
        forward = torch.inference_mode()(partial(caller(one), like, t))
        step = trained(one.loss, adam(one.network, "default" not in way))
        for runs, run in zip(found, (step, forward, partial(one.draw, n))):
            runs[way] = partial(repeated, run, times, half)
    rows = list[Row]()
    for what, runs, number in zip(WHAT, found, images):
        for one in ways.values():
            one.network.train(what == WHAT[0])
        if what in only:
            said = {"part": "peers", **about, "what": what}
            for row in timed(runs, repeats, times * number, peak, **said):
                each = {k: f"{float(row[k]) / times:.5g}" for k in ("seconds", "q25", "q75")}
                rows.append({**row, **each, "batch": number})
    return rows


def repeated(run: Callable[[], object], times: int, half: str) -> None:
    """Runs several times, on the device `half` under autocast to bfloat16."""
    with torch.autocast(half or "cpu", torch.bfloat16, enabled=bool(half)):
        for _ in range(times):
            run()


def of_diffusers(
    shape: Mapping[str, Any], x_0: Tensor, default_optimizer: bool
) -> tuple[str, dict[str, Any]]:
    """Returns a UNet's name and ways, all with the same weights."""
    network = UNet(x_0.shape[-1], 3, attention=(x_0.shape[-1] // 2,), **shape)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    ways: dict[str, Any] = {"ours": Ours(network, x_0)}
    if default_optimizer:
        ways["ours, default optimizer"] = Ours(network, x_0)
    ways["bare loop"] = Bare(network, x_0)
    for best in (False, True):
        ways[f"diffusers, {'best' if best else 'default'}"] = Diffusers(network, x_0, best)
    return f"UNet, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M", ways


def of_lucidrains(channels: int, x_0: Tensor) -> tuple[str, dict[str, Any]]:
    """Returns the same of denoising-diffusion-pytorch's network; no ways if it is not there."""
    try:
        theirs = import_module("denoising_diffusion_pytorch")
    except ImportError as error:
        print(f"denoising-diffusion-pytorch is left out: {error}")
        return "", {}
    both = [Lucidrains(theirs, channels, x_0, best) for best in (False, True)]
    network = both[0].as_ours()
    ways = {"ours": Ours(network, x_0), "bare loop": Bare(network, x_0)}
    ways |= zip(("denoising-diffusion-pytorch, default", "denoising-diffusion-pytorch, best"), both)
    return f"LinearUNet, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M", ways


def peers(args: argparse.Namespace, peak: float) -> list[Row]:
    """Returns rows of two networks, with the same weights everywhere."""
    torch.manual_seed(0)
    x_0 = torch.randn(args.batch, 3, args.size, args.size).clamp(-1, 1)
    shape: Any = {"channels": args.channels, "groups": min(32, args.channels // 4)}
    rows = list[Row]()
    for name, ways in (of_diffusers(shape, x_0, True), of_lucidrains(args.channels, x_0)):
        if ways:
            check_alike(ways)
            rows += beside(ways, args.repeats, peak, network=name)
    return rows
