"""A mode that refuses whatever makes the processor wait for an accelerator.

The meta device stands for the accelerator: it has no numbers to be read, so `.item()`, `.cpu()`,
`.tolist()` and `nonzero` fail on it by themselves. What also waits on a GPU but passes there is
found by looking at the operations: copies that block, indices from the CPU, and tensors made of
Python numbers, which are copied.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}


class Waits(AssertionError):
    """Something would wait."""


def away(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type != "cpu"


def tensors_of(values):
    for x in values:
        if isinstance(x, torch.Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from tensors_of(x)


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = list(tensors_of((args, tuple(kwargs.values()))))
        if name in READS and any(map(away, tensors)):
            raise Waits(f"{name}: read by the processor")
        if func in COPIES:
            to = torch.device(kwargs["device"]) if kwargs.get("device") else args[0].device
            moved = len({x.device.type for x in tensors} | {to.type}) > 1
            free = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            if moved and not (free and to.type != "cpu"):
                raise Waits(f"{name}: a copy between devices that blocks")
        elif any(map(away, tensors)):
            mixed = [x for x in tensors if not away(x) and (x.ndim or name.startswith("index"))]
            if mixed:
                raise Waits(f"{name}: {tuple(mixed[0].shape)} from the CPU")
        return func(*args, **kwargs)


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            to = kwargs.get("device")
            if not isinstance(args[0], torch.Tensor) and to and torch.device(to).type != "cpu":
                raise Waits(f"{func.__name__}: made of Python's numbers on {to}")
        return func(*args, **kwargs)


def no_waiting() -> ExitStack:
    """Returns a context in which waiting is an error."""
    stack = ExitStack()
    stack.enter_context(Functions())
    stack.enter_context(Operations())
    return stack
