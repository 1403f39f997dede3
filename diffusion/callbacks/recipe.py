"""All that a drawn picture depends on besides its number, so that sets are never mixed."""

import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from typing import Any

import lightning as L
from torch import Tensor, nn

from diffusion.callbacks.generation import by_stage
from diffusion.common.hashing import digest, weights_digest
from diffusion.networks.text.frozen_text import FrozenText
from diffusion.systems.averages import EMA
from diffusion.systems.trainer import callbacks_of

LONGEST = 60  # letters of a value in a message


def recipe(trainer: L.Trainer, module: Any, data: Any) -> dict[str, Any]:
    """Returns what the samples of `predict` depend on, as JSON can hold it.

    What changes no more than the rounding is left out: batch size, processes, kind of device.

    Args:
        trainer: With its callbacks.
        module: A `Generative`; its weights are in place.
        data: With `asked`, and a shape.
    """
    with ExitStack() as averages:
        for ema in callbacks_of(trainer):
            if isinstance(ema, EMA):
                averages.enter_context(ema.averaged(module))
        drawn = by_stage(module, _stage)
    about = {"class": type(data).__name__, "shape": data.shape, "levels": data.levels}
    found = {
        "data": {**about, **data.asked()},
        "model": {"class": type(module).__name__, **drawn},
        "trainer": {"precision": trainer.precision},
    }
    return json.loads(json.dumps(plain_values(found)))


def _stage(**settings: Any) -> dict[str, Any]:
    """Returns what a stage is, the weights of its network first, as all else follows them."""
    stage = plain_values(settings)
    network = stage.get("network")
    return {"weights": network.pop("weights"), **stage} if isinstance(network, dict) else stage


def difference(there: Any, here: Any) -> str | None:
    """Returns the first thing that differs, such as "model.sampler.steps 50, now 20", or None.

    Args:
        there: An earlier recipe.
        here: This one.
    """
    old, new = dict(_flat(there)), dict(_flat(here))
    changed = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    if not changed:
        return None
    key = changed[0]
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{key} {_short(old.get(key))}, now {_short(new.get(key))}{more}"


def plain_values(part: Any) -> Any:
    """Returns an object as plain values: its class, and what its public attributes are.

    Tensors are their digests; a module is its attributes, and digests of what it is made of and of
    its weights.
    """
    match part:
        case None | bool() | int() | str():
            return part
        case float():
            return part if math.isfinite(part) else str(part)
        case Tensor():
            return digest([str(part.dtype), part.tolist()])
        case Mapping():
            return {str(k): plain_values(v) for k, v in part.items()}
        case set() | frozenset():
            return sorted(map(str, part))
        case Sequence():
            return [plain_values(v) for v in part]
        case partial():
            named = {"class": plain_values(part.func), **part.keywords}
            return {**named, "args": plain_values(part.args)}
        case nn.Module():
            weights = weights_digest(part.state_dict())
            return {**_attributes(part), "parts": _digest_of_parts(part), "weights": weights}
    if inspect.isclass(part) or inspect.isroutine(part):
        return f"{part.__module__}.{part.__qualname__}"
    with suppress(TypeError):  # of what has no attributes, such as a path or torch's dtypes
        return _attributes(part)
    return str(part)


def _attributes(part: Any) -> dict[str, Any]:
    """Returns an object's class and public attributes, without what it has only computed."""
    computed = "training" if isinstance(part, nn.Module) else ""
    settings = {
        k: v
        for k, v in vars(part).items()
        if not k.startswith("_")
        and k != computed
        and not isinstance(inspect.getattr_static(type(part), k, None), cached_property)
    }
    return {"class": type(part).__name__, **plain_values(settings)}


def _digest_of_parts(module: nn.Module) -> str:
    """Returns 16 digits that change with the classes and settings of all of a module's parts."""
    found = [
        (name, _attributes(part), part.digest() if isinstance(part, FrozenText) else None)
        for name, part in module.named_modules()
    ]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the plain values of a nest, each under its keys joined by dots."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _flat(v, key if k == "class" else f"{key}.{k}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        yield key, [v.get("class") for v in value if isinstance(v, dict)]
        for i, v in enumerate(value):
            yield from _flat(v, f"{key}.{i}")
    else:
        yield key, value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"
