"""Commands that need no trainer: a typed function each, whose docstring is its help."""

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from docstring_parser import parse
from jsonargparse import ArgumentParser

COMMANDS = {
    "compare": "diffusion.metrics.compare.compare",
}


def listed() -> str:
    """Returns what the help of `diffusion` says about the commands."""
    known = (f"{name}: {parse(_doc(load(name))).short_description}" for name in COMMANDS)
    return f"commands without a trainer: {' '.join(known)}"


def load(name: str) -> Callable[..., None]:
    """Returns the function of a command."""
    module, _, function = COMMANDS[name].rpartition(".")
    return getattr(import_module(module), function)


def run(name: str, args: Sequence[str], parser: type[ArgumentParser]) -> None:
    """Parses a command's arguments and calls its function.

    A parameter with a default is a flag; one without, or `*more`, is positional.

    Args:
        name: One of COMMANDS.
        args: What follows it.
        parser: The class of the parser, which says what errors look like.
    """
    function = load(name)
    doc = parse(_doc(function))
    cli = parser(prog=f"diffusion {name}", description=doc.short_description)
    cli.add_function_arguments(function, as_group=False, as_positional=True)
    many = [
        p for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_POSITIONAL
    ]
    for p in many:
        text = next((x.description for x in doc.params if x.arg_name == p.name), None)
        cli.add_argument(p.name, nargs="+", type=p.annotation, help=text)
    values: dict[str, Any] = cli.parse_args(list(args)).as_dict()
    more = [value for p in many for value in values.pop(p.name)]
    function(*more, **values)


def _doc(function: Callable[..., None]) -> str:
    return inspect.getdoc(function) or ""
