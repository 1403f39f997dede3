"""Errors for people: one line that names the key, what it was and what would have been right."""

import collections.abc
import difflib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

LONGEST = 400
WORDS = {int: "int", float: "float", str: "a text", bool: "true or false", type(None): "null"}
OWNERS = {
    "data": "lightning.LightningDataModule",
    "model": "lightning.LightningModule",
    "model.optimizer": "torch.optim.Optimizer",
    "model.sampler": "diffusion.sampler.Sampler",
}
OURS = ("diffusion.", "torch.optim")
TENSOR = "<class 'torch.Tensor'>"
ASIDE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Expected a <class 'NoneType'>|Expected a path but"
    r"|Given value|Problem with given class_path|Parser key|$"
)
VALUE = re.compile(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)


def one_line(message: str, known: Mapping[str, Any] = types.MappingProxyType({})) -> str:
    """Shortens a parser's nest of attempts to a line that names the nearest thing that exists.

    Args:
        message: The parser's message.
        known: The keys of the command line, such as "trainer.max_steps", and the types of their
            values, or None where there is none.
    """
    complaint = Complaint(cause(message), known)
    for pattern, explain in CAUSES.items():
        match = re.search(pattern, complaint.message)
        if match and (line := explain(complaint, *match.groups())):
            return cut_short(line)
    lines = [line.strip().removeprefix("- ") for line in complaint.nest.splitlines()]
    text = " ".join(line for line in lines if not ASIDE.match(line)) or " ".join(lines)
    text = re.sub(r'Parser key "[^"]+": ', "", text)
    says_where = not complaint.key or re.match(r"[\w.]+[:=]", text)  # as our own errors do
    return cut_short(text if says_where else f"{complaint.key}: {text}")


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


def cut_short(text: str) -> str:
    """Returns a text that is not too long, cut between two words."""
    return textwrap.shorten(text, LONGEST, placeholder=" …")


def most_like(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the name that is most like the given one, or None if none is."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=cutoff)
    return found[0] if found else None


def unknown_key(key: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """Returns what to say of a key that does not exist.

    A known key whose last part begins it was meant, else the nearest, if it is as like as `cutoff`.
    """
    first, dot, rest = key.partition(".")
    whole = [f"{k}{dot}{rest}" for k in known if "." in k and k.rsplit(".", 1)[-1] == first]
    if whole:
        return f"{key}: no such key; expected {' or '.join(map(repr, dict.fromkeys(whole)))}"
    sections = {name.split(".")[0] for name in known}
    begin = [name for name in sections if name.startswith(first)]
    near = begin[0] if len(begin) == 1 else most_like(first, sections, cutoff)
    near = most_like(key, known, cutoff) or (near and f"{near}{dot}{rest}")
    return f"{key}: no such key; " + (f"the nearest is '{near}'" if near else "see --help")


class Complaint:
    """What a parser has against a key; each method returns a line for one kind of mistake.

    Attributes:
        key: The key, or "" if the message has none.
        owner: The class whose argument is wrong, if it is imported.
    """

    def __init__(self, message: str, known: Mapping[str, Any]) -> None:
        self.message, self.known = message, known
        self.nest = message.split("Given value type")[0]
        self.key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
        paths = re.findall(r"class_path[=']* ?'([\w.]+)'", self.nest)
        self.owner = next(filter(None, map(loaded_class, reversed(paths))), None)

    def unknown_key(self, name: str) -> str:
        """Of a key that does not exist."""
        name = name.lstrip("-").split("=")[0]
        classes = {section: loaded_class(path) for section, path in OWNERS.items()}
        having = [
            f"{section}.{name}"
            for section, base in classes.items()
            if base and any(name in _arguments(kind) for _, kind in nameable((base,)))
        ]
        return unknown_key(name, [*having, *self.known])

    def unknown_argument(self, name: str) -> str:
        """Of an argument that a class has not."""
        where = f"{self.key}.{name}" if self.key else name
        if self.owner is None:
            return self.unknown_key(name)
        if self.owner.__name__ in ("LightningModule", "LightningDataModule"):  # no class was said
            return f"{where}: no such argument; expected a class, --{self.key} CLASS, too"
        names, hint = _arguments(self.owner), self.hint(self.around())
        listed = nameable(classes_in(hint)) if _is_list(hint) else []
        if have := sorted({n for n, kind in listed if name in _arguments(kind)}):
            last = f"as the last of {self.key}, which a flag below it is for"
            right = f"expected {' or '.join(have)} {last}"
        elif near := most_like(name, names):
            right = f"the nearest is '{near}'"
        else:
            right = f"expected one of {', '.join(sorted(names))}" if names else "none"
        return f"{where}: {self.owner.__name__} has no such argument; {right}"

    def no_class(self, name: str, kinds: tuple[type, ...]) -> str:
        """Of a name where there should be one of a class of some kinds."""
        name, where = name.strip("'\""), self.key or "class_path"
        if re.search(r"/|\.(ya?ml|json)$", name):
            return f"{where}: {name!r}; expected a class or a file, there is no such file"
        names = [n for n in names_of(kinds) if n != name]
        if where.split(".")[-1] == "network":  # any module, but not a part of one
            networks = sys.modules["diffusion.networks"]
            parts = names_of((networks.Conditioner, networks.TokenEncoder))
            names = [n for n in names if n in dir(networks) and n not in parts]
        last = name.split(".")[-1]
        if near := {n.lower(): n for n in names}.get(last.lower()) or most_like(last, names):
            right = f"the nearest is '{near}'"
        else:
            kinds_of = [f"a {kind.__name__}" for kind in kinds]
            right = f"expected {' or '.join(kinds_of)}"
            right = f"expected one of {', '.join(names[:24])}" if names else right
        return f"{where}: '{name}' is no class for this; {right}"

    def missing(self, name: str) -> str:
        """Of a key without a value that has no default."""
        where = f"{self.key}.{name}" if self.key else name
        return f"{where}: missing; expected a value (a flag or a --config gives it)"

    def wrong_value(self, name: str | None = None) -> str | None:
        """Of a value of another type, or the name of a class that is not there or of another kind.

        None where nothing is known of the key.
        """
        hint, found = self.wanted(), VALUE.search(self.message)
        kinds, value = classes_in(hint), found.group(1) if found else ""
        choices = [leaf for leaf in leaves(hint) if isinstance(leaf, str)]
        if not choices and not {*WORDS} & {*kinds} and (name or not _is_list(hint)):
            return None if hint is None and name is None else self.no_class(name or value, kinds)
        near = most_like(value, choices)
        value = textwrap.shorten(value, 82, placeholder=" …")
        right = type_in_words(hint, value) + (f"; perhaps {near!r}" if near else "")
        return f"{self.key}: {value or repr('')}; expected {right}"

    def no_section(self, section: str, name: str) -> str:
        """Of a whole section that is no file."""
        return f"{section}: {name!r}; expected a file with these keys, or --{section}.KEY"

    def around(self) -> type | None:
        """Returns the class whose argument the last part of the key is."""
        before = self.message.rsplit(f'Parser key "{self.key.rsplit(".", 1)[-1]}"', 1)[0]
        paths = re.findall(r"Problem with given class_path '([\w.]+)'", before)
        return loaded_class(paths[-1]) if paths else None

    def wanted(self) -> Any:
        """Returns the type of the key's value, in whichever class the message speaks of."""
        made = re.findall(r"Got value: Namespace\(class_path='([\w.]+)'", self.message)
        hints = map(self.hint, (self.owner, self.around(), *map(loaded_class, made)))
        return next((hint for hint in hints if hint is not None), None)

    def hint(self, owner: type | None) -> Any:
        """Returns the type of the key's value in a class or, without one, on the command line."""
        if owner is None:
            return self.known.get(self.key)
        name = self.key.rsplit(".", 1)[-1]
        for kind in owner.__mro__:
            with suppress(NameError, TypeError):  # of annotations that are only for a checker
                names = inspect.signature(kind.__init__, eval_str=True).parameters
                if name in names:
                    return names[name].annotation
        return None


CAUSES: dict[str, Callable[..., str | None]] = {
    r"Subcommand '\w+' does not accept option '([^']+)'": Complaint.unknown_key,
    r"[Uu]nrecognized arguments?: (\S+)": Complaint.unknown_key,
    r"Option '([^']+)' is not accepted": Complaint.unknown_argument,
    r'Parser key "(\w+)": Unable to load config "(.*)"': Complaint.no_section,
    r"class_path '([^']+)':\s+(?:module '|No module named|.*cannot import)": Complaint.wrong_value,
    r"Expected a dot import path string: (\S+)": Complaint.wrong_value,
    r"[Nn]ot a valid subclass.*Got value: (.+)": Complaint.wrong_value,
    r"Import path (\S+) does not correspond to a subclass": Complaint.wrong_value,
    r"arguments are required: ([^\s,]+)": Complaint.missing,
    r"Expected a (?!path)|Does not validate against": Complaint.wrong_value,
}


def type_in_words(kind: Any, value: str = "") -> str:
    """Returns what values of a type look like.

    Args:
        kind: The type, such as `list[int] | None`.
        value: What was given instead: the example, if it only lacks brackets.
    """
    union = get_origin(kind) in (Union, types.UnionType)
    kinds = [k for k in (get_args(kind) if union else [kind]) if str(k) != TENSOR]
    choices = [repr(str(c)) for k in kinds if get_origin(k) is Literal for c in get_args(k)]
    words = [f"one of {', '.join(dict.fromkeys(choices))}"] * bool(choices)
    for k in sorted(kinds, key=lambda k: [*WORDS].index(k) if k in WORDS else -1):
        inner, origin = get_args(k), get_origin(k)
        if k in WORDS:
            words.append(WORDS[k])
        elif origin is tuple and Ellipsis not in inner:
            words.append(f"a list of {len(inner)}")
        elif _is_list(k):
            words.append("a list" if "[" in value else f"a list such as [{value}]")
        elif origin is collections.abc.Callable:
            words.append(type_in_words(inner[-1]))
        elif origin is not Literal:
            words.append(f"a class of {k.__name__}" if isinstance(k, type) else str(k))
    return " or ".join(words)


def leaves(kind: Any) -> list[Any]:
    """Returns the types, and the choices of a Literal, that a type is made of."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return [*map(str, inner)]
    if get_origin(kind) is collections.abc.Callable:
        return leaves(inner[-1])
    return [leaf for k in inner for leaf in leaves(k)] if inner else [kind]


def classes_in(kind: Any) -> tuple[type, ...]:
    """Returns the classes that a type is made of, but for that of None."""
    return tuple(k for k in leaves(kind) if isinstance(k, type) and k is not type(None))


def nameable(kinds: tuple[type, ...] = ()) -> list[tuple[str, type]]:
    """Returns the classes, of these kinds, that a configuration can name, with their names."""
    modules = [m for k, m in sys.modules.items() if k.startswith(OURS)]
    found = [pair for module in modules for pair in inspect.getmembers(module, inspect.isclass)]
    return [
        (name, kind)
        for name, kind in found
        if kind.__module__.startswith(OURS)
        and not inspect.isabstract(kind)
        and issubclass(kind, kinds or (object,))
    ]


def names_of(kinds: tuple[type, ...]) -> list[str]:
    """Returns the names by which a configuration can name classes of these kinds."""
    return sorted({name for name, _ in nameable(kinds)})


def loaded_class(path: str) -> type | None:
    """Returns a class that is imported already: a message is no reason to import anything."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    listed, other = collections.abc.Iterable, str | collections.abc.Mapping
    return isinstance(origin, type) and issubclass(origin, listed) and not issubclass(origin, other)


def _arguments(owner: type) -> set[str]:
    names = set[str]()
    for kind in owner.__mro__:
        parameters = inspect.signature(kind.__init__).parameters
        names |= {*parameters}
        if "__init__" in vars(kind) and not any(
            x.kind is x.VAR_KEYWORD for x in parameters.values()
        ):
            break  # nothing more goes on to its bases
    return names - {"self", "args", "kwargs", "params"}
