"""All that a drawn picture depends on besides its number, so that sets are never mixed."""

import hashlib
import inspect
import json
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
    return plain_values(found)


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
    """Returns an object as JSON has it: its class, and what its public attributes are.

    Tensors are their digests; a module is its attributes, and digests of what it is made of and of
    its weights.
    """
    return json.loads(json.dumps(part, default=_described), parse_constant=str)


def _described(part: Any) -> Any:
    """Returns an object as something nearer to JSON."""
    if isinstance(part, Tensor):
        return digest([str(part.dtype), part.tolist()])
    if isinstance(part, Mapping):
        return dict(part)
    if isinstance(part, Sequence):
        return list(part)
    if isinstance(part, set | frozenset):
        return sorted(map(str, part))
    if isinstance(part, partial):
        return {"class": part.func, **part.keywords, "args": part.args}
    if isinstance(part, nn.Module):
        parts = [
            (name, _attributes(part), part.digest() if isinstance(part, FrozenText) else None)
            for name, part in part.named_modules()
        ]
        made = json.dumps(parts, sort_keys=True, default=_described).encode()
        about = {**_attributes(part), "parts": hashlib.sha256(made).hexdigest()[:16]}
        return {**about, "weights": weights_digest(part.state_dict())}
    if inspect.isclass(part) or inspect.isroutine(part):
        return f"{part.__module__}.{part.__qualname__}"
    with suppress(TypeError):  # of what has no attributes, such as a path or torch's dtypes
        return _attributes(part)
    return str(part)


def _attributes(part: Any) -> dict[str, Any]:
    """Returns an object's class and public attributes, without what it has only computed."""
    computed = {"training"} if isinstance(part, nn.Module) else set()
    computed |= {k for k, v in inspect.getmembers_static(type(part)) if type(v) is cached_property}
    public = {k: v for k, v in vars(part).items() if not k.startswith("_") and k not in computed}
    return {"class": type(part).__name__, **public}


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
