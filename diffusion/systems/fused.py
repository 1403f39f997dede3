"""Adam's step as one kernel over all parameters, which is the same up to rounding and faster."""

from collections.abc import Iterable

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from diffusion.common.muon import MuonWithAdamW

KINDS = (Adam, AdamW, MuonWithAdamW)  # Muon's share of AdamW
DEVICES = ("cpu", "cuda", "mps", "xpu")  # that PyTorch has such kernels for
UNTOLD = {"fused": None, "foreach": None, "capturable": False, "differentiable": False}


def fused(make: OptimizerCallable, params: Iterable[Tensor]) -> Optimizer:
    """Returns an optimizer of parameters, one of `KINDS` fused unless it was told otherwise.

    What it was told is `fused: false`, say, or another of `UNTOLD`. Other optimizers are left as
    they are; PyTorch's SGD and Adagrad take sparse gradients, which their fused kernels refuse.

    The constructor's `fused` has the step divide gradients by fp16's loss scale, too, so that they
    are clipped and logged before that; Lightning refuses to clip then. The groups' option, which is
    set here, is the kernel alone.

    Args:
        make: From parameters to an optimizer.
        params: What is trained.
    """
    optimizer = make(params)
    groups = optimizer.param_groups
    if type(optimizer) in KINDS and all(UNTOLD.items() <= group.items() for group in groups):
        fits = all(_fits(p) for group in groups for p in group["params"])
        for group in groups if fits else ():
            group["fused"] = True
    return optimizer


def _fits(p: Tensor) -> bool:
    """Whether the kernel can move a parameter, which lies in memory without gaps."""
    plain = type(p) is nn.Parameter and p.is_floating_point() and p.device.type in DEVICES
    return plain and torch.empty_like(p, device="meta").stride() == p.stride()


def lay_out(optimizer: Optimizer) -> None:
    """Lays gradients out in memory as their parameters are.

    Autograd does so by itself. The fused kernel of a CPU takes it for granted, and is silently
    wrong with a gradient from elsewhere that is laid out otherwise.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group.get("fused") else ():
            if p.grad is not None and p.grad.stride() != p.stride():
                p.grad = laid_out_as(p, p.grad)


def laid_out_as(p: Tensor, x: Tensor) -> Tensor:
    """Returns x, of p's shape, with p's strides; a copy, if it has others."""
    if x.stride() == p.stride():
        return x
    return torch.empty_strided(p.shape, p.stride(), dtype=x.dtype, device=x.device).copy_(x)
