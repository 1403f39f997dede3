"""All that a drawn picture depends on besides its number, so that sets are never mixed."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

import lightning as L
from torch import Tensor, nn

from diffusion.common.hashing import digest, weights_digest
from diffusion.networks.text.frozen_text import FrozenText
from diffusion.systems.averages import EMA

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
        for ema in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(ema, EMA):
                averages.enter_context(ema.averaged(module))
        drawn = described(module.settings())
    if "stages" in drawn:
        drawn["stages"] = [_with_weights(stage) for stage in drawn["stages"]]
    else:
        drawn = _with_weights(drawn)
    of_data = {"class": type(data).__name__, "shape": data.shape, "levels": data.levels}
    found = {
        "data": {**of_data, **data.asked()},
        "model": {"class": type(module).__name__, **drawn},
        "trainer": {"precision": trainer.precision},
    }
    return json.loads(json.dumps(described(found)))


def _with_weights(stage: dict[str, Any]) -> dict[str, Any]:
    """Returns what a stage is with the weights of its network first, as all else follows them."""
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


def described(part: Any) -> Any:
    """Returns an object as plain values: its class, and what its public attributes are.

    Tensors are their digests; a module is its attributes, and digests of what it is made of and of
    its weights.
    """
    if isinstance(part, float):
        return part if math.isfinite(part) else str(part)
    if part is None or isinstance(part, bool | int | str):
        return part
    if isinstance(part, Tensor):
        return digest([str(part.dtype), part.tolist()])
    if isinstance(part, Mapping):
        return {str(k): described(v) for k, v in part.items()}
    if isinstance(part, set | frozenset):
        return sorted(map(str, part))
    if isinstance(part, Sequence):
        return [described(v) for v in part]
    if isinstance(part, partial):
        return {"class": described(part.func), **part.keywords, "args": described(part.args)}
    if isinstance(part, nn.Module):
        return {**_own(part), "parts": _parts(part), "weights": weights_digest(part.state_dict())}
    if hasattr(part, "__qualname__"):
        return f"{part.__module__}.{part.__qualname__}"
    return _own(part) if hasattr(part, "__dict__") else str(part)


def _own(part: Any) -> dict[str, Any]:
    """Returns an object's class and public attributes, without what it has only computed."""
    settings = {
        k: v
        for k, v in vars(part).items()
        if not k.startswith("_")
        and not isinstance(getattr(type(part), k, None), cached_property)
        and not (isinstance(part, nn.Module) and k == "training")
    }
    return {"class": type(part).__name__, **described(settings)}


def _parts(module: nn.Module) -> str:
    """Returns 16 digits that change with the classes and settings of all of a module's parts."""
    found = [
        (name, _own(part), part.digest() if isinstance(part, FrozenText) else None)
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
