"""Errors for people: one line that names the key, what it was and what would have been right."""

import collections.abc
import difflib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

LONGEST = 400
ASIDE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Expected a <class 'NoneType'>|Expected a path but"
    r"|Given value|Problem with given class_path|Parser key|$"
)
PLAIN = [int, float, str, bool, type(None)]
OWNERS = {
    "data": ".LightningDataModule",
    "model": ".LightningModule",
    "model.optimizer": "torch.optim.optimizer.Optimizer",
    "model.sampler": "diffusion.sampler.Sampler",
}
OURS = ("diffusion.", "torch.optim")
VALUE = re.compile(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)


def one_line(message: str, known: Mapping[str, Any] = types.MappingProxyType({})) -> str:
    """Shortens a parser's nest of attempts to a line that names the nearest thing that exists.

    Args:
        message: The parser's message.
        known: The keys of the command line, such as "trainer.max_steps", and the types of their
            values, or None where there is none.
    """
    message = cause(message)
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    nest = message.split("Given value type")[0]
    owners = map(_class, reversed(re.findall(r"class_path[=']* ?'([\w.]+)'", nest)))
    owner = next((found for found in owners if found), None)
    for pattern, explain in CAUSES:
        match = re.search(pattern, message)
        if match and (line := explain(key, owner, match, known)):
            return shortened(line)
    lines = [line.strip().removeprefix("- ") for line in nest.splitlines()]
    text = " ".join(line for line in lines if not ASIDE.match(line)) or " ".join(lines)
    text = re.sub(r'Parser key "[^"]+": ', "", text)
    return shortened(text if not key or _says_where(text) else f"{key}: {text}")


def blamed(options: Mapping[str, Any], message: str) -> str:
    """Returns what Lightning has against an option of the trainer, behind the option's name."""
    given = {key: value for key, value in options.items() if value is not None}
    said = [key for key in given if re.search(rf"`{key}`|\b{key}=", message)]
    named = [key for key in given if re.search(rf"\b{key}\b", message)]
    valued = [k for k, v in given.items() if isinstance(v, str) and v and v in message]
    for key in [*said, *named, *valued]:
        return f"trainer.{key}: {given[key]}; expected otherwise: {message}"
    return message


def cause(message: str) -> str:
    """Returns what went wrong in a process that reads data: the end of the traceback it sent."""
    if not re.match(r"Caught \w+ in DataLoader worker process", message):
        return message
    last = message.rpartition("Traceback (most recent call last):")[2]
    end = re.search(r"^([\w.]+)(?:: (.*))?\Z", last.strip("\n"), re.MULTILINE | re.DOTALL)
    return message if end is None else end[2] or end[1]


def shortened(text: str) -> str:
    """Returns a text that is not too long, cut between two words."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"


def most_like(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the name that is most like the given one, or None if none is."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=cutoff)
    return found[0] if found else None


def type_in_words(kind: Any, value: str = "") -> str:
    """Returns what values of a type look like.

    Args:
        kind: The type, such as `list[int] | None`.
        value: What was given instead, for an example.
    """
    union = get_origin(kind) in (Union, types.UnionType)
    kinds = [k for k in (get_args(kind) if union else [kind]) if not _is_tensor(k)]
    choices = [c for k in kinds if get_origin(k) is Literal for c in get_args(k)]
    words = [f"one of {', '.join(dict.fromkeys(repr(str(c)) for c in choices))}"] * bool(choices)
    for k in sorted(kinds, key=lambda k: PLAIN.index(k) if k in PLAIN else -1):
        inner, origin = get_args(k), get_origin(k)
        if origin is Literal:
            continue
        if k in PLAIN:
            words += {type(None): ["null"], bool: ["true", "false"], str: ["a text"]}.get(
                k, [k.__name__]
            )
        elif origin is tuple and Ellipsis not in inner:
            words.append(f"a list of {len(inner)}, such as [{', '.join(map(_example, inner))}]")
        elif _is_list(k):
            words.append(f"a list such as [{_example(*inner[:1], value=value)}]")
        elif origin is collections.abc.Callable:
            words.append(type_in_words(inner[-1]))
        else:
            words.append(f"a class of {k.__name__}" if isinstance(k, type) else str(k))
    return " or ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


def _example(kind: Any = str, value: str = "") -> str:
    """Returns what could stand in a list of a type: what was given, if it only lacks brackets."""
    kinds = leaves(kind)
    if {int, float} & set(kinds):
        return value if re.fullmatch(r"-?[\d.]+(\s*,\s*-?[\d.]+)*", value) else "1"
    if str in kinds:
        return value or "text"
    texts = [k for k in kinds if isinstance(k, str)]
    names = texts or subclasses(tuple(k for k in kinds if isinstance(k, type)))
    return most_like(value, names) or next(iter(names), "name")


def leaves(kind: Any) -> list[Any]:
    """Returns the types, and the choices of a Literal, that a type is made of."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return [*map(str, inner)]
    if get_origin(kind) is collections.abc.Callable:
        return leaves(inner[-1])
    return [leaf for k in inner for leaf in leaves(k)] if inner else [kind]


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(
        origin, collections.abc.Iterable
    ) and not issubclass(origin, str | collections.abc.Mapping)  # fmt: skip


def _is_tensor(kind: Any) -> bool:
    return isinstance(kind, type) and (kind.__module__, kind.__name__) == ("torch", "Tensor")


def _argument(key: str, owner: type | None, match: re.Match, known: Mapping[str, Any]) -> str:
    """Returns what to say of an argument that a class has not."""
    name = match.group(1)
    where = f"{key}.{name}" if key else name
    if owner is None:
        return _key(key, owner, match, known)
    if owner.__name__ in ("LightningModule", "LightningDataModule"):  # no class was said
        return f"{where}: no such argument; expected a class, --{key} CLASS, too"
    names = _arguments(owner)
    near = most_like(name, names)
    right = f"the nearest is '{near}'" if near else f"expected one of {', '.join(sorted(names))}"
    hint = _hint(key, _around(key, match.string), known)
    have = [n for n, c in _classes() if _is_list(hint) and _is_kind(c, hint)]
    have = sorted({n for n, c in _classes() if n in have and name in _arguments(c)})
    if have:
        right = f"expected {' or '.join(have)} as the last of {key}, which a flag below it is for"
    return f"{where}: {owner.__name__} has no such argument; {right if names or have else 'none'}"


def _arguments(owner: type) -> set[str]:
    names = {p for c in owner.__mro__ for p in inspect.signature(c.__init__).parameters}
    return names - {"self", "args", "kwargs"}


def _around(key: str, message: str) -> type | None:
    """Returns the class, in a parser's message, whose argument the last part of a key is."""
    before = message.rsplit(f'Parser key "{key.rsplit(".", 1)[-1]}"', 1)[0]
    paths = re.findall(r"Problem with given class_path '([\w.]+)'", before)
    return _class(paths[-1]) if paths else None


def _name(key: str, owner: type | None, match: re.Match, known: Mapping[str, Any]) -> str | None:
    """Returns what to say of a class that is not there or of another kind; None for a value."""
    hint = _wanted(key, owner, match.string, known)
    kinds = tuple(k for k in leaves(hint) if isinstance(k, type) and k is not type(None))
    return None if set(PLAIN) & set(kinds) else _no_class(key, match.group(1), kinds)


def _no_class(key: str, name: str, kinds: tuple[type, ...]) -> str:
    name = name.strip("'\"")
    where = key or "class_path"
    if re.search(r"/|\.(ya?ml|json)$", name):
        return f"{where}: {name!r}; expected a class or a file, there is no such file"
    names = [n for n in subclasses(kinds) if n != name]
    if key.split(".")[-1] == "network":  # any module, but not a part of one
        networks = sys.modules["diffusion.networks"]
        parts = subclasses((networks.Conditioner, networks.TextEncoder))
        names = [n for n in names if n in networks.__all__ and n not in parts]
    folded = {n.lower(): n for n in names}
    last = name.split(".")[-1]
    near = folded.get(last.lower()) or most_like(last, names)
    right = f"the nearest is '{near}'" if near else f"expected one of {', '.join(names[:12])}"
    right = right if names else f"expected {' or '.join(f'a {k.__name__}' for k in kinds)}"
    return f"{where}: '{name}' is no class for this; {right}"


def subclasses(kinds: tuple[type, ...]) -> list[str]:
    """Returns the names of the classes of these kinds that a configuration can name."""
    return sorted({n for n, c in _classes() if issubclass(c, kinds or (object,))})


def _is_kind(found: type, hint: Any) -> bool:
    kinds = tuple(k for k in leaves(hint) if isinstance(k, type) and k is not type(None))
    return issubclass(found, kinds or (object,))


def _classes() -> list[tuple[str, type]]:
    """Returns the classes that a configuration can name, with their names."""
    modules = [m for k, m in sys.modules.items() if k.startswith(OURS)]
    found = [pair for module in modules for pair in inspect.getmembers(module, inspect.isclass)]
    return [(n, c) for n, c in found if c.__module__.startswith(OURS) and not inspect.isabstract(c)]


def _key(key: str, owner: type | None, match: re.Match, known: Mapping[str, Any]) -> str:
    """Returns what to say of a key that does not exist."""
    name = match.group(1).lstrip("-").split("=")[0]
    first, _, rest = name.partition(".")
    same = [
        f"{section}.{name}"
        for section, base in OWNERS.items()
        if any(_is_a(c, base) and name in _arguments(c) for _, c in _classes())
    ]
    if same := same + [k for k in known if "." in k and k.rsplit(".", 1)[-1] == name]:
        return f"{name}: no such key; expected {' or '.join(map(repr, same))}"
    near = most_like(name, known) or most_like(first, {k.split(".")[0] for k in known})
    if near and rest and "." not in near:
        near = f"{near}.{rest}"
    return f"{name}: no such key" + (f"; the nearest is '{near}'" if near else "; see --help")


def _is_a(found: type, base: str) -> bool:
    return any(f"{c.__module__}.{c.__name__}".endswith(base) for c in found.__mro__)


def _missing(key: str, owner: type | None, match: re.Match, known: Mapping[str, Any]) -> str:
    where = f"{key}.{match.group(1)}" if key else match.group(1)
    return f"{where}: missing; expected a value (a flag or a --config gives it)"


def _value(key: str, owner: type | None, match: re.Match, known: Mapping[str, Any]) -> str | None:
    """Returns what to say of a value of another type."""
    hint = _wanted(key, owner, match.string, known)
    if hint is None:
        return None
    found = VALUE.search(match.string)
    value = found.group(1) if found else ""
    kinds = tuple(k for k in leaves(hint) if k is not type(None))
    if all(isinstance(k, type) and k not in PLAIN for k in kinds) and not _is_list(hint):
        return _no_class(key, value, kinds)
    near = most_like(value, [k for k in kinds if isinstance(k, str)])
    value = value if len(value) <= 80 else f"{value[:80].rsplit(' ', 1)[0]} …"
    right = type_in_words(hint, value) + (f"; perhaps {near!r}" if near else "")
    return f"{key}: {value or repr('')}; expected {right}"


def _section(key: str, owner: type | None, match: re.Match, known: Mapping[str, Any]) -> str:
    name = match.group(2)
    return f"{match.group(1)}: {name!r}; expected a file with these keys, or --{match.group(1)}.KEY"


CAUSES: list[tuple[str, Callable[[str, Any, re.Match, Mapping[str, Any]], str | None]]] = [
    (r"Subcommand '\w+' does not accept option '([^']+)'", _key),
    (r"[Uu]nrecognized arguments?: (\S+)", _key),
    (r"Option '([^']+)' is not accepted", _argument),
    (r'Parser key "(\w+)": Unable to load config "(.*)"', _section),
    (r"class_path '([^']+)':\s+(?:module '|No module named|.*cannot import)", _name),
    (r"Expected a dot import path string: (\S+)", _name),
    (r"[Nn]ot a valid subclass.*Got value: (.+)", _name),
    (r"Import path (\S+) does not correspond to a subclass", _name),
    (r"arguments are required: ([^\s,]+)", _missing),
    (r"Expected a (?!path)", _value),
    (r"Does not validate against", _value),
]


def _says_where(text: str) -> bool:
    """Whether a text begins with a key, as this project's own errors do."""
    return re.match(r"[\w.]+[:=]", text) is not None


def _class(path: str) -> type | None:
    """Returns a class that is imported already: a message is no reason to import anything."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def _wanted(key: str, owner: type | None, message: str, known: Mapping[str, Any]) -> Any:
    """Returns the type of a key's argument, in whichever class a parser's message speaks of."""
    made = re.findall(r"Got value: Namespace\(class_path='([\w.]+)'", message)
    for kind in (owner, _around(key, message), *map(_class, made)):
        if (hint := _hint(key, kind, known)) is not None:
            return hint
    return None


def _hint(key: str, owner: type | None, known: Mapping[str, Any]) -> Any:
    """Returns the type of an argument of a class or, without one, of a key; None if unknown."""
    if owner is None:
        return known.get(key)
    name = key.rsplit(".", 1)[-1]
    for kind in owner.__mro__:
        with suppress(NameError, TypeError):  # of annotations that are only there for a checker
            names = inspect.signature(kind.__init__, eval_str=True).parameters
            if name in names:
                return names[name].annotation
    return None
