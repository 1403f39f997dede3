"""What is taken from a checkpoint's configuration: what describes the model and its data.

A configuration names classes, and the command line makes objects of them, so that one from a
stranger could run anything. `Taken` walks it before any parser sees it, by the types of the
arguments that it gives, and writes it down anew: classes of this package and of torch.optim that
are what an argument wants, classes that the user's own command line or configuration names, and
plain values. Folders to write to, loggers, callbacks, profilers and plugins are left out.
"""

import collections.abc
import inspect
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from diffusion.interop.presets import Settings

PACKAGE = __name__.partition(".")[0]
FETCHING = ("HuggingFace",)  # reads and fetches what others made, by rules of its own
FOLDERS = ("cache", "dirpath", "folder")
TRAINER = {
    *("accelerator", "accumulate_grad_batches", "benchmark", "check_val_every_n_epoch"),
    *("detect_anomaly", "deterministic", "devices", "enable_checkpointing", "enable_model_summary"),
    *("enable_progress_bar", "gradient_clip_algorithm", "gradient_clip_val", "inference_mode"),
    *("limit_predict_batches", "limit_test_batches", "limit_train_batches", "limit_val_batches"),
    *("log_every_n_steps", "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps"),
    *("num_sanity_val_steps", "overfit_batches", "precision", "sync_batchnorm"),
    *("use_distributed_sampler", "val_check_interval"),
}
TELLING = ("callbacks", "logger", "num_nodes", "plugins", "profiler", "strategy")
LARGEST = {
    **dict.fromkeys(("image_size", "low_size", "size", "width"), 2**13),
    **{"T": 10**5, "batch_size": 2**17, "num_workers": 2**8, "points": 10**6},
}
LARGE = 10**9
PLAIN = re.compile(r"[\w:-]*")
LONGEST, DEEPEST, MOST = 2**20, 50, 10**5  # characters, levels and values of a configuration


@dataclass(frozen=True)
class Trust:
    """What the user says of the checkpoints that are read.

    Attributes:
        all: Whether the user made them, so that all of their configuration is taken.
        named: Texts in the command line and its configurations; classes of these names are taken.
    """

    all: bool = False
    named: frozenset[str] = frozenset()


NOBODY = Trust()
TRUST: ContextVar[Trust] = ContextVar("TRUST", default=NOBODY)


@contextmanager
def trusting(trust: bool, named: Iterable[str] = ()) -> Iterator[None]:
    """Trusts the checkpoints that are read meanwhile, or just some names in them, more."""
    before = TRUST.get()
    token = TRUST.set(Trust(before.all or trust, before.named.union(named)))
    try:
        yield
    finally:
        TRUST.reset(token)


class Taken:
    """What is taken from one checkpoint.

    Args:
        file: What errors call it, key and path.

    Attributes:
        left: The keys that were left out although they say something.
    """

    def __init__(self, file: str) -> None:
        self.file, self.named = file, TRUST.get().named
        self.left: list[str] = []
        self._visited = 0

    def configuration(
        self, config: Mapping[str, Any], parts: Mapping[str, type], sections: Mapping[str, type]
    ) -> Settings:
        """Returns what is taken from a whole configuration.

        Args:
            config: The configuration.
            parts: The base class of each section that names a class, such as model and data.
            sections: The class of each section that gives the arguments of one.

        Raises:
            ValueError: If it asks for anything else.
        """
        found: Settings = {}
        for key in (key for key in parts if config.get(key) is not None):
            found[key] = self.object(config[key], parts[key], key)
        for key in (key for key in sections if config.get(key) is not None):
            found[key] = self.arguments(config[key], sections[key], key)
        if isinstance(config.get("trainer"), Mapping):
            found["trainer"] = dict(self._trainer(config["trainer"]))
        if isinstance(seed := config.get("seed_everything"), int):
            found["seed_everything"] = seed
        if config.get("wandb") == "off":
            found["wandb"] = "off"
        return found

    def _trainer(self, trainer: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in trainer.items():
            if key in TELLING and value not in (None, False, True, 1, "auto"):
                self.left.append(f"trainer.{key}")
            elif key in TRAINER and self._setting(key, value):
                yield key, value

    def _setting(self, key: str, value: Any) -> bool:
        """Whether it is a plain one, of no more processes than this machine has processors."""
        if key == "devices":
            return value == "auto" or (isinstance(value, int) and value <= (os.cpu_count() or 1))
        return bool(PLAIN.fullmatch(value)) if isinstance(value, str) else _scalar(value)

    def object(self, spec: Any, base: Any, at: str) -> Settings:
        """Returns a class and its arguments, once they are known to be harmless.

        Args:
            spec: The class's name, or {"class_path": name, "init_args": arguments}.
            base: What the argument wants: a class, or several.
            at: The argument's key.

        Raises:
            ValueError: If the class or an argument is something else.
        """
        path, given = _parts(spec, base)
        if path is None:
            raise self._refused(at, spec, f"expected a {_name(base)}")
        kind = self.kind(path, base, at)
        made = self.arguments(given, kind, at)
        if is_dataclass(kind):  # which have no subclasses to choose from
            return made
        full = path if "." in path else f"{kind.__module__}.{kind.__qualname__}"
        return {"class_path": full, "init_args": made} if made else {"class_path": full}

    def kind(self, path: str, base: Any, at: str) -> type:
        """Returns the class that a name stands for.

        Raises:
            ValueError: If it is not of this package or torch.optim, nor named by the user, or not
                what the argument wants.
        """
        found = None
        if "." not in path:
            found = next((c for c in _subclasses(base) if c.__name__ == path), None)
        elif self._importable(path):
            module, _, name = path.rpartition(".")
            try:
                found = getattr(import_module(module), name, None)
            except ImportError:
                found = None
        if not isinstance(found, type) or not self._known(found, path):
            raise self._refused(at, path, "expected classes of this package or torch.optim")
        if not issubclass(found, base):
            raise self._refused(at, path, f"expected a {_name(base)}")
        return found

    def _importable(self, path: str) -> bool:
        parts = path.split(".")
        ours = parts[0] == PACKAGE or parts[:2] == ["torch", "optim"]
        plain = all(part.isidentifier() and part != "__main__" for part in parts)
        return plain and (ours or path in self.named)

    def _known(self, kind: type, path: str) -> bool:
        ours = kind.__module__.startswith((f"{PACKAGE}.", "torch.optim."))
        return path in self.named or (ours and kind.__name__ not in FETCHING)

    def arguments(self, given: Any, kind: type, at: str) -> Settings:
        """Returns the arguments of a class, without those that say where to write.

        Raises:
            ValueError: If one is unknown, or not what its type says.
        """
        if not isinstance(given, Mapping):
            raise self._refused(at, given, "expected arguments by name")
        hints, found = _hints(kind), {}
        for key, value in given.items():
            if key not in hints:
                raise self._refused(f"{at}.{key!s:.80}", value, f"{kind.__name__} has no such key")
            if key == "trust" or (key in FOLDERS and value is None):
                continue
            if key in FOLDERS:
                self.left += [f"{at}.{key}"] * (value != hints[key][1])
                continue
            found[key] = self.value(value, hints[key][0], f"{at}.{key}")
        if "root" in found and hints["root"][1] not in (inspect.Parameter.empty, found["root"]):
            self._only_read(found, hints, at)
        return found

    def _only_read(self, found: Settings, hints: Mapping[str, Any], at: str) -> None:
        """Lets nothing be fetched into a folder of the checkpoint's choice."""
        if "download" in hints:
            found["download"] = False
        elif not any(Path(os.path.expanduser(found["root"])).glob("*.whl")):
            self.left.append(f"{at}.root")
            del found["root"]

    def value(self, value: Any, hint: Any, at: str) -> Any:
        """Returns an argument of a type.

        Raises:
            ValueError: If it is not of this type.
        """
        self._visited += 1
        if self._visited > MOST or at.count(".") + at.count("[") > DEEPEST:
            raise self._refused(at, value, "expected a smaller configuration")
        origin, of = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._one_of(value, of, at)
        if origin is Literal:
            if isinstance(value, str | int) and value in of:
                return value
        elif isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
            if isinstance(value, Mapping) and all(
                isinstance(k, str) and k.isprintable() for k in value
            ):
                return {k: self.value(v, of[1], f"{at}.{k:.80}") for k, v in value.items()}
        elif isinstance(origin, type) and issubclass(origin, collections.abc.Collection):
            if isinstance(value, list | tuple) and len(value) <= MOST:
                kinds = [hint for hint in of if hint is not ...] or [Any]
                kinds += kinds[-1:] * (len(value) - len(kinds))
                return [
                    self.value(v, k, f"{at}[{i}]") for i, (v, k) in enumerate(zip(value, kinds))
                ]
        elif origin is collections.abc.Callable:
            if isinstance(value, str) and value in self.named:
                return value
            made = get_args(of[-1]) if of and get_origin(of[-1]) else of[-1:]
            if made and all(isinstance(kind, type) and kind is not Any for kind in made):
                return self.object(value, tuple(made), at)
        elif _is_plain(hint):
            if _fits(value, hint) and not self._absurd(value, at):
                return value
        elif isinstance(hint, type):
            return self.object(value, hint, at)
        raise self._refused(at, value, f"expected {_name(hint)}")

    def _one_of(self, value: Any, hints: Sequence[Any], at: str) -> Any:
        """Returns an argument of the first of several types that it is of."""
        if value is None and type(None) in hints:
            return None
        errors = []
        for hint in (hint for hint in hints if hint is not type(None)):
            try:
                return self.value(value, hint, at)
            except ValueError as error:
                errors.append(error)
        raise errors[-1]

    def _absurd(self, value: Any, at: str) -> bool:
        key = re.sub(r"\[\d+\]$", "", at).rpartition(".")[2]
        counted = isinstance(value, int) and "seed" not in key
        if counted and abs(value) > LARGEST.get(key, LARGE):
            raise self._refused(at, value, f"expected at most {LARGEST.get(key, LARGE)}")
        return False

    def _refused(self, at: str, value: Any, why: str) -> ValueError:
        shown = " ".join(str(value).split())[:80] if _scalar(value) else f"a {type(value).__name__}"
        return ValueError(
            f"{self.file} asks for {at:.120}: {shown}; {why} (name it in a --config of yours, or "
            "--trust a file that you made)"
        )


def loaded(text: Any, file: str) -> dict[str, Any]:
    """Returns a configuration from its text.

    Args:
        text: The YAML.
        file: What errors call it.

    Raises:
        ValueError: If it is no YAML of sections, or so large or knotted that it was never saved.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError(f"{file}; expected a configuration as fit saves it, it has another")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
        config = yaml.safe_load(text)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).split("\n")[0][:100]
        raise ValueError(f"{file}; expected a configuration as fit saves it ({reason})") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise ValueError(f"{file}; expected a configuration of sections, it is no such thing")
    return config


def named(args: Sequence[str]) -> frozenset[str]:
    """Returns the texts in the user's arguments and in the configurations that they name.

    Whatever is among them, the user has asked for.
    """
    found: set[str] = set()
    for arg in args:
        value = arg.split("=", 1)[1] if arg.startswith("--") and "=" in arg else arg
        found.update(_texts(value))
        file = Path(value)
        if file.suffix in (".yaml", ".yml") and file.is_file():
            try:
                found.update(_texts(yaml.safe_load(file.read_text(encoding="utf-8"))))
            except (OSError, ValueError, yaml.YAMLError):
                continue  # the parser says what is wrong with it
    return frozenset(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if value[:1] in "[{":  # YAML on the command line
            yield from re.findall(r"[A-Za-z_][\w.]*", value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _parts(spec: Any, base: Any) -> tuple[str | None, Any]:
    """Returns the class path and the arguments of a specification; no path if it is none.

    Arguments alone are those of the very class that is wanted.
    """
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping):
        return None, {}
    if "class_path" not in spec and isinstance(base, type):
        return f"{base.__module__}.{base.__qualname__}", spec
    path = spec.get("class_path")
    known = isinstance(path, str) and set(spec) <= {"class_path", "init_args"}
    return (path if known else None), spec.get("init_args") or {}


def _hints(kind: type) -> dict[str, tuple[Any, Any]]:
    """Returns type and default of a class's arguments, and its parents' if it hands them on."""
    found: dict[str, tuple[Any, Any]] = {}
    for parent in kind.__mro__:
        if "__init__" not in vars(parent) or parent is object:
            continue
        init: Callable[..., None] = vars(parent)["__init__"]
        try:
            hints = get_type_hints(init)
        except (NameError, TypeError):
            hints = {}
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, (hints.get(p.name, Any), p.default))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _subclasses(base: Any) -> Iterator[type]:
    left = list(base) if isinstance(base, tuple) else [base]
    while left:
        kind = left.pop()
        if kind.__module__.startswith((f"{PACKAGE}.", "torch.optim.")):
            yield kind
        left += type.__subclasses__(kind)


def _is_plain(hint: Any) -> bool:
    simple = (bool, int, float, str, Path)
    return hint in (Any, inspect.Parameter.empty) or (
        isinstance(hint, type) and issubclass(hint, simple)
    )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is a number, a text or nothing, and of the type if that says which."""
    if hint in (Any, inspect.Parameter.empty):  # a dotted text might be imported
        values = value if isinstance(value, list | tuple) else [value]
        return all(_scalar(v) and (not isinstance(v, str) or PLAIN.fullmatch(v)) for v in values)
    if issubclass(hint, bool) or isinstance(value, bool):
        return isinstance(value, bool) and issubclass(hint, bool)
    if issubclass(hint, float):
        return isinstance(value, int | float)
    return isinstance(value, str if issubclass(hint, Path) else hint.__mro__[-2])


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _name(hint: Any) -> str:
    if isinstance(hint, tuple):
        return " or ".join(_name(part) for part in hint)
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
