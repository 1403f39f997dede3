"""Errors for people: one line that names the key, what it was and what would have been right."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, get_args, get_type_hints

LONGEST = 400
ASIDE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Expected a <class 'NoneType'>|Expected a path but"
    r"|Given value|Problem with given class_path|Parser key|$"
)


def one_line(message: str, known: Sequence[str] = ()) -> str:
    """Shortens a parser's nest of attempts to a line that names the nearest thing that exists.

    Args:
        message: The parser's message.
        known: The keys of the command line, such as "trainer.max_steps".
    """
    message = cause(message)
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    nest = message.split("Given value type")[0]
    owners = re.findall(r"class_path[=']* ?'([\w.]+)'", nest)
    owner = _class(owners[-1]) if owners else None
    for pattern, explain in CAUSES:
        match = re.search(pattern, message)
        if match:
            return explain(key, owner, match.group(1), known)
    lines = [line.strip().lstrip("- ") for line in nest.splitlines()]
    text = " ".join(line for line in lines if not ASIDE.match(line)) or " ".join(lines)
    text = re.sub(r'Parser key "[^"]+": ', "", text)
    text = text if not key or _says_where(text) else f"{key}: {text}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def cause(message: str) -> str:
    """Returns what went wrong in a process that reads data: the end of the traceback it sent."""
    if not re.match(r"Caught \w+ in DataLoader worker process", message):
        return message
    last = message.rpartition("Traceback (most recent call last):")[2]
    end = re.search(r"^([\w.]+)(?:: (.*))?\Z", last.strip("\n"), re.MULTILINE | re.DOTALL)
    return message if end is None else end[2] or end[1]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the name that is most like the given one, or None if none is."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return found[0] if found else None


def _argument(key: str, owner: type | None, name: str, known: Sequence[str]) -> str:
    """An argument that a class has not."""
    where = f"{key}.{name}" if key else name
    if owner is None:
        return _key(key, owner, where, known)
    names = [p for c in owner.__mro__ for p in inspect.signature(c.__init__).parameters]
    names = sorted({n for n in names if n not in ("self", "args", "kwargs")})
    near = nearest(name, names)
    right = f"the nearest is '{near}'" if near else f"expected one of {', '.join(names)}"
    return f"{where}: {owner.__name__} has no such argument; {right}"


def _name(key: str, owner: type | None, name: str, known: Sequence[str]) -> str:
    """A class that does not exist, or is not of the kind wanted."""
    kind = _kind(key, owner)
    names = [
        n
        for m in [m for k, m in sys.modules.items() if k.startswith(("diffusion.", "torch.optim"))]
        for n, c in vars(m).items()
        if isinstance(c, type) and issubclass(c, kind) and not inspect.isabstract(c) and c != kind
    ]
    if name in names:
        names.remove(name)
    near = nearest(name.split(".")[-1], names)
    listed = ", ".join(sorted(set(names))[:12])
    right = f"the nearest is '{near}'" if near else f"expected one of {listed}"
    return f"{key or 'class_path'}: '{name}' is no class for this; {right}"


def _key(key: str, owner: type | None, name: str, known: Sequence[str]) -> str:
    """A key of the command line that does not exist."""
    name = name.lstrip("-").split("=")[0]
    first, _, rest = name.partition(".")
    near = nearest(name, known) or nearest(first, {k.split(".")[0] for k in known})
    if near and rest and "." not in near:
        near = f"{near}.{rest}"
    return f"{name}: no such key" + (f"; the nearest is '{near}'" if near else "; see --help")


def _missing(key: str, owner: type | None, name: str, known: Sequence[str]) -> str:
    if not key:
        return f"{name}: missing; expected a value (a flag or a --config gives it)"
    return f"{key}.{name}: missing; expected a value (a flag or a --config gives it)"


def _value(key: str, owner: type | None, text: str, known: Sequence[str]) -> str:
    """A value of another type: text is what was expected."""
    wanted, _, value = text.partition(". Got value: ")
    kind = re.sub(r"<class '([\w.]+)'>|typing\.Literal\[(.*)\]", r"\1\2", wanted)
    return f"{key}: {value}; expected {'one of ' if 'Literal' in wanted else ''}{kind}"


def _choice(key: str, owner: type | None, text: str, known: Sequence[str]) -> str:
    name, *choices = re.findall(r"'(\w+)'", text)
    near = nearest(name, choices)
    return f"{name}: expected one of {', '.join(choices)}" + (f"; perhaps '{near}'" if near else "")


CAUSES: list[tuple[str, Callable[[str, Any, str, Sequence[str]], str]]] = [
    (r"Subcommand '\w+' does not accept option '([^']+)'", _key),
    (r"[Uu]nrecognized arguments?: (\S+)", _key),
    (r"Option '([^']+)' is not accepted", _argument),
    (r"Expected a dot import path string: (\S+)", _name),
    (r"has no attribute .*Got value: ([\w.]+)", _name),
    (r"[Nn]ot a valid subclass.*Got value: ([\w.]+)", _name),
    (r"Import path (\S+) does not correspond to a subclass", _name),
    (r"arguments are required: ([^\s,]+)", _missing),
    (r"argument subcommand: (invalid choice: .*)", _choice),
    (r"Expected a ((?!<class 'NoneType'>)(?:<class|typing\.Literal).*?\. Got value: .*)", _value),
]


def _says_where(text: str) -> bool:
    """Whether a text begins with a key, as this project's own errors do."""
    return re.match(r"[\w.]+[:=]", text) is not None


def _class(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        return None
    return found if isinstance(found, type) else None


def _kind(key: str, owner: type | None) -> type:
    """The class that an argument of a class wants an instance of."""
    if owner is None:
        return object
    kinds: list[Any] = [get_type_hints(owner.__init__).get(key.rsplit(".", 1)[-1], object)]
    for kind in kinds:
        kinds.extend(get_args(kind))
    plain = [k for k in kinds if isinstance(k, type) and not get_args(k) and k is not type(None)]
    return next((k for k in plain if k.__module__.split(".")[0] in ("diffusion", "torch")), object)
