"""What is taken from a checkpoint's configuration: what describes the model and its data.

A configuration names classes, and the command line makes objects of them, so that one from a
stranger could run anything. `Taken` walks it before any parser sees it, by the types of the
arguments that it gives. A class has to be what its argument wants, and of this package, of
torch.optim, or named in the user's own command line or configuration; a text that could be
imported stays only where nothing but a text is wanted. Folders to write to, loggers, callbacks,
profilers and plugins are left out. Whether a value is of its type, the parser says.
"""

import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import is_dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import yaml

from diffusion.interop.presets import Settings

OURS = (f"{__name__.partition('.')[0]}.", "torch.optim.")
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
PLAIN = (bool, int, float, str, Path, type(None))
WORD = re.compile(r"[\w:-]*")  # a text that nothing can be imported by
PATH = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")
LONGEST, DEEPEST, MOST = 2**20, 50, 10**5  # characters, levels and values of a configuration


# The words of the user's own command line and configurations, whose classes are taken; None where
# the user made the checkpoints that are read, so that all of their configuration is taken.
TRUST: ContextVar[frozenset[str] | None] = ContextVar("TRUST", default=frozenset())


@contextmanager
def trusting(trust: bool, named: Iterable[str] = ()) -> Iterator[None]:
    """Trusts the checkpoints that are read meanwhile, or just some names in them, more."""
    before = TRUST.get()
    token = TRUST.set(None if trust or before is None else before.union(named))
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
        self.file, self.named = file, TRUST.get() or frozenset()
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
        config = {key: value for key, value in config.items() if value is not None}
        found: Settings = {k: self.object(config[k], parts[k], k) for k in parts if k in config}
        found |= {k: self.arguments(config[k], sections[k], k) for k in sections if k in config}
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
            plain = WORD.fullmatch(value) if isinstance(value, str) else _is_scalar(value)
            if key == "devices" and value != "auto":
                plain = isinstance(value, int) and value <= (os.cpu_count() or 1)
            if key in TRAINER and plain:
                yield key, value

    def object(self, spec: Any, wanted: type | tuple[type, ...], at: str) -> Settings:
        """Returns a class and its arguments, once they are known to be harmless.

        Args:
            spec: The class's name, {"class_path": name, "init_args": arguments}, or the arguments
                of the one class that is wanted.
            wanted: The class of which it has to be, or several.
            at: The argument's key.

        Raises:
            ValueError: If the class is neither of this package or torch.optim nor named by the
                user, or not what is wanted, or an argument is not harmless.
        """
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        if isinstance(spec, str):
            spec = {"class_path": spec}
        elif isinstance(spec, Mapping) and "class_path" not in spec and len(wanted) == 1:
            spec = {"class_path": _full_name(wanted[0]), "init_args": spec}
        path = spec.get("class_path") if isinstance(spec, Mapping) else None
        if not isinstance(path, str) or spec.keys() - {"class_path", "init_args"}:
            raise self._refused(at, spec, f"expected a {_names(wanted)}")
        found = None
        if "." not in path:
            found = next((kind for kind in _subclasses(wanted) if kind.__name__ == path), None)
        elif path in self.named or (path.startswith(OURS) and PATH.fullmatch(path)):
            with suppress(ImportError, AttributeError, ValueError):
                found = resolve_name(path)
        ours = isinstance(found, type) and f"{found.__module__}.".startswith(OURS)
        if not isinstance(found, type) or not (
            path in self.named or (ours and found.__name__ not in FETCHING)
        ):
            raise self._refused(at, path, "expected classes of this package or torch.optim")
        if not any(_is_a(found, kind) for kind in wanted):
            raise self._refused(at, path, f"expected a {_names(wanted)}")
        made = self.arguments(spec.get("init_args") or {}, found, at)
        if is_dataclass(found) and found in wanted:  # and no subclass of it
            return made
        full = path if "." in path else _full_name(found)
        return {"class_path": full, "init_args": made} if made else {"class_path": full}

    def arguments(self, given: Any, kind: type, at: str) -> Settings:
        """Returns the arguments of a class, without those that say where to write.

        Raises:
            ValueError: If one is unknown, or asks for something else than its type says.
        """
        if not isinstance(given, Mapping):
            raise self._refused(at, given, "expected arguments by name")
        hints, found = _hints(kind), {}
        for key, value in given.items():
            if key not in hints:
                raise self._refused(f"{at}.{key!s:.80}", value, f"{kind.__name__} has no such key")
            hint, default = hints[key]
            if key in FOLDERS and value not in (None, default):
                self.left.append(f"{at}.{key}")
            if key not in (*FOLDERS, "trust"):
                found[key] = self.value(value, hint, f"{at}.{key}")
        if "root" in found and hints["root"][1] not in (inspect.Parameter.empty, found["root"]):
            if "download" in hints:  # nothing is fetched into a folder of the checkpoint's choice
                found["download"] = False
            elif not any(Path(os.path.expanduser(found["root"])).glob("*.whl")):
                self.left.append(f"{at}.root")
                del found["root"]
        return found

    def value(self, value: Any, hint: Any, at: str) -> Any:
        """Returns an argument of a type, once its classes, texts and numbers are harmless.

        Raises:
            ValueError: If they are not.
        """
        self._visited += 1
        if self._visited > MOST or at.count(".") + at.count("[") > DEEPEST:
            raise self._refused(at, value, "expected a smaller configuration")
        if isinstance(value, list | tuple):
            return [self.value(part, hint, f"{at}[{i}]") for i, part in enumerate(value)]
        allowed = set(_allowed(hint))
        classes = tuple(kind for kind in allowed if isinstance(kind, type) and kind not in PLAIN)
        if isinstance(value, Mapping):
            by_name = any(_is_mapping(part) for part in (hint, *get_args(hint)))
            if "class_path" in value or (classes and not by_name):
                return self.object(value, classes, at)
            return {key: self.value(part, hint, f"{at}.{key!s:.80}") for key, part in value.items()}
        if not _is_scalar(value):
            raise self._refused(at, value, f"expected {_names(allowed)}")
        if isinstance(value, str) and value not in allowed | self.named:
            if classes and str not in allowed:
                return self.object(value, classes, at)
            if (classes or not allowed & {str, Path}) and not WORD.fullmatch(value):
                raise self._refused(at, value, f"expected {_names(allowed)}")
        key = re.sub(r"\[\d+\]", "", at).rpartition(".")[2]
        largest = LARGEST.get(key, LARGE)
        if isinstance(value, int) and "seed" not in key and abs(value) > largest:
            raise self._refused(at, value, f"expected at most {largest}")
        return value

    def _refused(self, at: str, value: Any, why: str) -> ValueError:
        what = str(value) if _is_scalar(value) else f"a {type(value).__name__}"
        return ValueError(
            f"{self.file} asks for {at:.120}: {' '.join(what.split())[:80]}; {why} (name it in a "
            "--config of yours, or --trust a file that you made)"
        )


def loaded(text: Any, file: str) -> dict[str, Any]:
    """Returns a configuration from its text.

    Args:
        text: The YAML.
        file: What errors call it.

    Raises:
        ValueError: If it is no YAML of sections, or so large or knotted that it was never saved.
    """
    try:
        if not isinstance(text, str) or len(text) > LONGEST:
            raise ValueError("it is something else")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise ValueError("it has aliases, or too many levels")
        config = yaml.safe_load(text)
        if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
            raise ValueError("it has no sections")
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).split("\n")[0][:100]
        raise ValueError(f"{file}; expected a configuration as fit saves it ({reason})") from None
    return config


def user_words(args: Sequence[str]) -> frozenset[str]:
    """Returns the words in the user's arguments and in the configurations that they name.

    A class of such a name, the user has asked for.
    """
    texts = list(args)
    for arg in args:
        file = Path(arg.split("=", 1)[-1])
        if file.suffix in (".yaml", ".yml") and file.is_file():
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
    return frozenset(word for text in texts for word in re.split(r"[\s=,:{}\[\]'\"]+", text))


def _allowed(hint: Any) -> Iterator[Any]:
    """Yields the classes that a type is made of, and the values of its literals."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        yield from parts
    elif _is_mapping(hint):
        yield from _allowed(parts[1])
    elif parts:  # of a Callable what it returns, as its arguments are a list
        for part in parts:
            yield from _allowed(part)
    elif isinstance(hint, type) and hint is not inspect.Parameter.empty:
        yield hint


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _hints(kind: type) -> dict[str, tuple[Any, Any]]:
    """Returns type and default of a class's arguments, and its parents' if it hands them on."""
    found: dict[str, tuple[Any, Any]] = {}
    for parent in kind.__mro__:
        try:
            hints = get_type_hints(parent.__init__)
        except (NameError, TypeError):
            hints = {}
        parameters = list(inspect.signature(parent.__init__).parameters.values())[1:]
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, (hints.get(p.name, Any), p.default))
        if parent is kind and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _is_a(found: type, kind: type) -> bool:
    """Whether a class is of a kind; of a protocol, which may have attributes, by its methods."""
    if Protocol not in kind.__bases__:
        return issubclass(found, kind)
    methods = {name for name, _ in inspect.getmembers(kind, inspect.isfunction)}
    return {name for name in methods if not name.startswith("_")} <= {*dir(found)}


def _subclasses(kinds: Iterable[type]) -> Iterator[type]:
    for kind in kinds:
        if kind.__module__.startswith(OURS):
            yield kind
        yield from _subclasses(type.__subclasses__(kind))


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _names(wanted: Iterable[Any]) -> str:
    return " or ".join(sorted(x.__name__ if isinstance(x, type) else str(x) for x in wanted))
