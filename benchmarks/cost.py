"""What a training step costs, from running it without numbers: FLOPs, bytes, operators.

Tensors are PyTorch's fake ones: they have a shape, a type and a device, and no memory, so that a
network of billions of parameters is counted on any machine.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)

from diffusion.networks import half_precision

aten = torch.ops.aten


def attention_flop(q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Returns FLOPs of PyTorch's attention on a CPU, which its counter does not know."""
    return sdpa_flop_count(q, k, v)


def attention_backward_flop(
    grad: Any, q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Returns FLOPs of its gradient."""
    return sdpa_backward_flop_count(grad, q, k, v)


ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flop,
}


FORMULAS = {**flop_registry, **{k: shape_wrapper(v) for k, v in ATTENTION.items()}}


@dataclass(frozen=True)
class Op:
    """An operator of a step that was not a view: its FLOPs, and bytes read and written."""

    flops: int
    bytes: int


@dataclass
class Cost:
    """A training step of some batch.

    Attributes:
        forward: Operators of the forward pass.
        backward: Of the backward pass, with what checkpointing computes again.
        saved: Bytes that the forward pass leaves for the backward pass.
        peak: Bytes that live at most, gradients included, weights and inputs not.
        inputs: Bytes of the batch.
    """

    forward: list[Op] = field(default_factory=list)
    backward: list[Op] = field(default_factory=list)
    saved: int = 0
    peak: int = 0
    inputs: int = 0

    @property
    def step(self) -> list[Op]:
        """All operators."""
        return self.forward + self.backward


def flops(ops: Sequence[Op]) -> int:
    """Returns their FLOPs, two for a multiplication with its addition."""
    return sum(op.flops for op in ops)


class Meter(TorchDispatchMode):
    """Notes operators, with FLOPs by PyTorch's formulas, and how many bytes of storage live."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = list[Op]()
        self.live = self.peak = 0
        self.known: dict[int, weakref.finalize] = {}

    def keep(self, *tensors: Tensor) -> None:
        """Leaves out storages that were there before."""
        for x in tensors:
            self.known[x.untyped_storage()._cdata] = weakref.finalize(x, int)

    def freed(self, key: int, size: int) -> None:
        """Counts a storage that is gone."""
        self.live -= size
        del self.known[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator."""
        out = func(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        for x in outputs:
            storage = x.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known:
                self.live += size
                self.known[key] = weakref.finalize(storage, self.freed, key, size)
        self.peak = max(self.peak, self.live)
        if not func.is_view and outputs:
            inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            moved = sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
            formula: Any = FORMULAS.get(func._overloadpacket)
            found = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
            self.ops.append(Op(int(found), moved))
        return out


def in_float32(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Calls a norm as CUDA's autocast does; that of the CPU leaves it in bfloat16."""
    return (args[0].float(), *args[1:])


def cost(
    network: nn.Module,
    make: Callable[[], tuple[Sequence[Tensor], Mapping[str, Tensor]]],
    bf16: bool = False,
) -> Cost:
    """Returns what a forward and a backward pass of the mean square of the output cost.

    Args:
        network: The network; in a mode of fake tensors, or else it computes.
        make: Returns (x_t, t) and the conditions.
        bf16: Whether as under CUDA's autocast to bfloat16.
    """
    args, conditions = make()
    found, saved = Cost(inputs=sum(x.nbytes for x in (*args, *conditions.values()))), {}
    given = [*network.parameters(), *network.buffers(), *args, *conditions.values()]
    before = {x.untyped_storage()._cdata for x in given}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in before:
            saved[storage._cdata] = storage
        return x

    with ExitStack() as stack:
        meter = stack.enter_context(Meter())
        meter.keep(*given)
        for norm in network.modules() if bf16 else ():
            if isinstance(norm, nn.GroupNorm | nn.LayerNorm):
                hook = norm.register_forward_pre_hook(in_float32)
                stack.callback(hook.remove)
        # What a CPU computes in float32 to be faster stays in half precision, as on a GPU.
        stack.enter_context(patch.object(half_precision, "slow_in_half", lambda x: False))
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            loss = network(*args, **conditions).float().square().mean()
        found.saved = sum(x.nbytes() for x in saved.values())
        saved.clear()
        found.forward, meter.ops = meter.ops, []
        loss.backward()
        found.backward = meter.ops
    found.peak = meter.peak
    network.zero_grad()
    return found
