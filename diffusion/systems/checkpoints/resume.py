"""What a run that goes on takes from its checkpoint, and what from its configuration.

Options are the configuration's: learning rate, betas, weight decay, the schedule. What training
has learnt is the checkpoint's: an optimizer's moments, where they fit, and the number of steps, at
which the schedule goes on as if it had been this one from the first step.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from diffusion.common.schedules import move
from diffusion.systems.fused import laid_out_as

OPTIMIZERS = "optimizer_states"
SCHEDULES = "lr_schedulers"


def adopt(
    checkpoint: dict[str, Any],
    optimizers: Sequence[Optimizer],
    schedules: Sequence[LRSchedulerConfig],
) -> None:
    """Puts today's options into a checkpoint, before Lightning restores optimizers and schedules.

    A schedule that moves once a step is moved to the checkpoint's step, any other one as often as
    it had moved.

    Args:
        checkpoint: Changed in place.
        optimizers: Of the module's parameters, to be thrown away.
        schedules: Theirs.

    Raises:
        ValueError: If the checkpoint has no optimizer, or those of another model.
    """
    saved, moved = checkpoint.get(OPTIMIZERS), checkpoint.get(SCHEDULES) or []
    if not saved:
        raise ValueError(
            "ckpt_path: a checkpoint of weights alone; expected one that training can go on from, "
            "or model.start, to begin with its weights"
        )
    if len(saved) != len(optimizers):
        raise ValueError(
            f"ckpt_path: {len(saved)} optimizers; expected {len(optimizers)}, as the model has"
        )
    states = [_state(*pair) for pair in zip(saved, optimizers)]
    for i, schedule in enumerate(schedules):
        alone = moved[i].get("last_epoch", 0) if i < len(moved) else 0
        steps = checkpoint["global_step"] if schedule.interval == "step" else alone
        scheduler: Any = schedule.scheduler
        move(scheduler, steps)
    checkpoint[OPTIMIZERS] = [
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        for state, optimizer in zip(states, optimizers)
    ]
    checkpoint[SCHEDULES] = [schedule.scheduler.state_dict() for schedule in schedules]


def _state(saved: Mapping[str, Any], optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Returns what a checkpoint's optimizer remembers that this one can use.

    By the number of the parameter; nothing, with a warning, if this one remembers other things.
    """
    parameters = [(i, p) for i, group in enumerate(optimizer.param_groups) for p in group["params"]]
    theirs = sum(len(group["params"]) for group in saved["param_groups"])
    if theirs != len(parameters):
        raise ValueError(
            f"ckpt_path: its optimizer trains {theirs} tensors; expected {len(parameters)}, as the "
            "model does"
        )
    state, examples = saved["state"], _examples(optimizer)
    numbered = [(i, p, state.get(n)) for n, (i, p) in enumerate(parameters)]  # none at first
    both = [(p, s, examples[i, p.ndim]) for i, p, s in numbered if s and (i, p.ndim) in examples]
    if any(there.keys() != example.keys() for _, there, example in both):
        rank_zero_warn(
            f"model.optimizer: {type(optimizer).__name__} remembers other things than the "
            "checkpoint's optimizer did; it begins anew, from the weights as they are"
        )
        return {}
    for p, there, example in both:
        for name, moment in example.items():
            of_p = isinstance(moment, Tensor) and moment.shape == (2,) * p.ndim
            if of_p and isinstance(there[name], Tensor) and there[name].shape != p.shape:
                raise ValueError(
                    f"ckpt_path: its optimizer's {name} is {tuple(there[name].shape)} where a "
                    f"tensor of the model is {tuple(p.shape)}; expected a checkpoint of this model"
                )
            if of_p and isinstance(there[name], Tensor):
                there[name] = laid_out_as(p, there[name])
    return state


def _examples(optimizer: Optimizer) -> dict[tuple[int, int], dict[str, Any]]:
    """Returns what an optimizer remembers after a step of tensors (2, …, 2).

    By the number of a group and their dimensions; empty for an optimizer that cannot do such a step
    on the CPU.
    """
    groups, tensors = [], {}
    for i, group in enumerate(optimizer.param_groups):
        some = {
            (i, n): nn.Parameter(torch.zeros((2,) * n)) for n in {p.ndim for p in group["params"]}
        }
        groups.append({**group, "params": [*some.values()]})
        tensors |= some
    for p in tensors.values():
        p.grad = torch.ones_like(p)
    fresh = copy.copy(optimizer)
    fresh.state, fresh.param_groups = defaultdict(dict), groups
    try:
        fresh.step(lambda: 0.0)
    except Exception:  # whatever it needs besides
        return {}
    return {key: fresh.state.get(p, {}) for key, p in tensors.items()}


def count(
    loops: dict[str, Any], batches: int, steps: int, accumulated: int, epoch: int | None
) -> None:
    """Tells Lightning's loops where in its epoch training is: at the end of a step's last batch.

    Args:
        loops: The state of the fit loop, changed in place.
        batches: How many of today's batches training has read.
        steps: How many optimizer steps are complete.
        accumulated: Batches of an optimizer step.
        epoch: Batches of an epoch, or None for no epochs.
    """
    batches = max(batches, 1)
    passed, now = divmod(batches - 1, epoch) if epoch else (0, batches - 1)
    now = -(-(now + 1) // accumulated) * accumulated  # a step begins with its first batch
    now = min(now, epoch) if epoch else now
    total = passed * (epoch or 0) + now
    batch, last = loops["epoch_loop.batch_progress"], now == epoch
    for name, n in (("total", total), ("current", now)):
        batch[name] = {"ready": n, "started": n, "processed": n, "completed": n - 1}
    batch["is_last_batch"] = last
    for counts in (loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]):
        counts.update(ready=passed + 1, started=passed + 1, processed=passed, completed=passed)
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - 1  # Lightning adds the last
