"""Whether a file's network is as large as the file says, before it is given any memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from diffusion.networks.locked import FromFile, Locked
from diffusion.process import Process

PACKAGE = __name__.partition(".")[0]
INSIDE: ContextVar[int] = ContextVar("INSIDE", default=0)  # a file may name another
SPARE, FEW = 4, 100  # weights that are shared or not saved; how many tensors may always be


def check_network(section: Mapping[str, Any], weights: Mapping[str, Tensor], file: str) -> None:
    """Builds the network of a model section without memory, and stops where it becomes too large.

    Args:
        section: As `Taken.object` returns it; networks of others' classes are not looked at.
        weights: What the file holds.
        file: What errors call it.

    Raises:
        ValueError: If it has many times the file's tensors or numbers, or cannot be built.
    """
    spec = section.get("init_args", {}).get("network")
    if spec is None or not _ours(spec):
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _bounded(weights):
            made(spec)
    except Exception as error:  # whatever arguments a class does not expect
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{file}; expected the configuration of its network ({reason})") from None


@contextmanager
def _bounded(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets no more parameters be made, meanwhile, than could be those of some weights."""
    tensors = SPARE * len(weights) + FEW
    numbers = SPARE * sum(value.numel() for value in weights.values()) + FEW

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal tensors, numbers
        # What is read from another file is no part of this one, and is checked with that.
        if parameter is None or not parameter.is_meta or INSIDE.get() != mine:
            return
        tensors, numbers = tensors - 1, numbers - parameter.numel()
        if tensors < 0 or numbers < 0:
            raise ValueError("it is larger than the weights in the file")

    handle, mine = register_module_parameter_registration_hook(count), INSIDE.get() + 1
    token = INSIDE.set(mine)
    try:
        yield
    finally:
        INSIDE.reset(token)
        handle.remove()


def made(value: Any) -> Any:
    """Returns what a specification describes, with all that it is made of."""
    if isinstance(value, list):
        return [made(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: made(part) for key, part in value.items()}
    kind = resolve_name(value["class_path"])
    arguments = {key: made(part) for key, part in value.get("init_args", {}).items()}
    if not issubclass(kind, Process | Locked | FromFile):
        return kind(**arguments)
    with torch.device("cpu"):  # its tables, and digests of weights, are looked at while it is made
        return kind.unread() if issubclass(kind, Locked) else kind(**arguments)


def _ours(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_ours, value))
    if not isinstance(value, Mapping):
        return True
    path = value.get("class_path", PACKAGE)
    return path.partition(".")[0] == PACKAGE and all(map(_ours, value.values()))
