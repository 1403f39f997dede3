"""What speed.py measures of half_precision.py and muon.py, beside PyTorch's own."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from bench import Row
from speed import has_bf16, timed
from torch import nn

from diffusion.common.muon import MuonWithAdamW
from diffusion.networks import UNet
from diffusion.systems.fused import fused

LAST = torch.channels_last


def network() -> UNet:
    """Returns that of configs/flow_emoji.yaml without its texts, dropout and initial zeros."""
    shape: dict[str, Any] = {"channels": 64, "multipliers": [1, 2, 2], "attention": [8, 4]}
    made = UNet(**shape, blocks=1, head_width=32, scale_shift=True, patch=2)
    for p in made.parameters():
        nn.init.normal_(p, std=0.02) if p.ndim > 1 else None
    return made.to(memory_format=LAST)


def gradients(made: UNet, x: torch.Tensor, half: bool) -> None:
    """Computes those of one training step."""
    made.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        made(x, torch.arange(1, len(x) + 1)).float().square().mean().backward()


def of_pytorch(made: UNet, x: torch.Tensor) -> None:
    """Computes them by PyTorch's kernels for half precision."""
    with mock.patch("diffusion.networks.half_precision.slow_in_half", return_value=False):
        gradients(made, x, True)


def optimizers(made: UNet) -> dict[str, Callable[[], object]]:
    """Returns steps of the same matrices and of the rest of the weights."""
    for p in made.parameters():
        p.grad = torch.randn_like(p)
    ours = fused(partial(MuonWithAdamW, lr=1e-3), made.parameters())
    groups = {group["orthogonal"]: group["params"] for group in ours.param_groups}
    # PyTorch's takes no kernels: these are the matrices that ours makes of them.
    flat = [nn.Parameter(p.detach().flatten(1)) for p in groups[True]]
    for p in flat:
        p.grad = torch.randn_like(p)
    muon = torch.optim.Muon(flat, lr=1e-3, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(groups[False], lr=1e-3, fused=True)
    return {"ours": ours.step, "PyTorch's Muon and AdamW": lambda: (muon.step(), adamw.step())}


def kernels(args: argparse.Namespace) -> list[Row]:
    """Returns times of gradients in half precision and of steps of Muon."""
    torch.manual_seed(0)
    made, rows = network(), list[Row]()
    size = sum(p.numel() for p in made.parameters()) / 1e6
    about: dict[str, Any] = {"part": "kernels", "network": f"UNet, {size:.2f} M"}
    x = torch.randn(4 * args.batch, 3, 32, 32).contiguous(memory_format=LAST)
    if has_bf16():
        ways = {
            "bfloat16, ours": partial(gradients, made, x, True),
            "bfloat16, PyTorch's kernels": partial(of_pytorch, made, x),
            "float32": partial(gradients, made, x, False),
        }
        rows += timed(ways, args.repeats, len(x), what="gradients", **about)
    return rows + timed(optimizers(made), args.repeats, len(x), what="a step of Muon", **about)
