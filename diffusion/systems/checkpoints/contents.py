"""What a checkpoint holds: compared with the model, before anything is restored."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from diffusion.common.weights import read, state
from diffusion.networks.locked import check_bases
from diffusion.spec import DataSpec
from diffusion.systems.averages import RAW, STEPS
from diffusion.systems.checkpoints.restorable import Restorable

LARGEST = 10**9  # of counters


def check_checkpoint(module: L.LightningModule, path: Path, training: bool = False) -> None:
    """Compares a checkpoint's tensors with the model's, which hears what it was trained on.

    Args:
        module: The model.
        path: The file.
        training: Whether it will be trained on, which takes more than its weights.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, or the file is none.
    """
    content = read(path, "ckpt_path")
    saved = state(content, "ckpt_path", path)
    check_tensors(module.state_dict(), saved, f"ckpt_path: {path}", same_shape)
    if isinstance(module, Restorable):
        module.expects = DataSpec.read(content)
    if training:
        check_training(content, saved, path)


def check_training(content: Mapping[str, Any], saved: Mapping[str, Tensor], path: Path) -> None:
    """Refuses a checkpoint from which training cannot go on.

    Args:
        content: What the file holds.
        saved: Its state_dict.
        path: The file.

    Raises:
        ValueError: If counters, raw weights or the optimizer's state are missing or something else.
    """
    file, counted = f"ckpt_path: {path}", ["epoch", "global_step"]
    if RAW in content:
        raw = state(content, "ckpt_path", path, RAW)
        check_tensors({k: v for k, v in saved.items() if k in raw}, raw, file, same_shape)
        counted.append(STEPS)
    whole = {key: is_count(content.get(key)) for key in counted}
    # Without an optimizer's state, `adopt` says what else can be done.
    for key, parts in {"optimizer_states": {"state", "param_groups"}, "lr_schedulers": ()}.items():
        found = content.get(key, [])
        whole[key] = isinstance(found, list) and all(
            isinstance(one, Mapping) and one.keys() >= set(parts) for one in found
        )
    whole["callbacks"] = isinstance(content.get("callbacks", {}), Mapping)
    loops = content.get("loops", {})
    whole["loops"] = isinstance(loops, Mapping) and are_counters(loops)
    if wrong := [key for key, right in whole.items() if not right]:
        raise ValueError(f"{file}; expected its {wrong[0]} as fit saves it, to train on from there")


def are_counters(loops: Any) -> bool:
    """Whether something is a nest of counters, as Lightning's loops have them."""
    if isinstance(loops, Mapping):
        return all(map(are_counters, loops.values()))
    return isinstance(loops, bool) or is_count(loops)


def is_count(value: Any) -> bool:
    """Whether a value can be a number of steps."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def check_tensors(
    mine: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    file: str,
    fits: Callable[[str, Tensor, Tensor], bool],
) -> None:
    """Compares the tensors of a file with a model's.

    Args:
        mine: The model's, by name.
        saved: The file's.
        file: What errors call it.
        fits: Whether the tensor of a name, mine and the file's, can be copied.

    Raises:
        ValueError: If one is missing, unexpected, or does not fit.
    """
    check_bases(mine, saved, file)
    for name in (*mine, *saved):
        here, there = mine.get(name), saved.get(name)
        if here is None or there is None or not fits(name, here, there):
            alike = here is not None and there is not None and here.shape == there.shape
            was, want = (
                "nothing" if x is None else _type_or_shape(x, alike) for x in (there, here)
            )
            raise ValueError(f"{file} is of another model: {name:.100} is {was}; expected {want}")


def _type_or_shape(x: Tensor, alike: bool) -> str:
    return f"of {x.dtype}".replace("torch.", "") if alike else str(tuple(x.shape))


def same_shape(name: str, here: Tensor, there: Tensor) -> bool:
    """Whether both have the same shape, and both are real numbers or both are not."""
    return here.shape == there.shape and (here.is_floating_point() == there.is_floating_point())
