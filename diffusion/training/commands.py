"""Commands that need no trainer: a typed function each, whose docstring is its help."""

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from docstring_parser import parse
from jsonargparse import ArgumentParser

COMMANDS = {
    "compare": "diffusion.metrics.compare.compare",
    "export": "diffusion.training.convert.export",
    "import": "diffusion.training.convert.import_",
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

    `*more` is positional; every other parameter is a flag, required if it has no default. A name
    that Python keeps for itself has an underscore at its end, the flag has not: `from_`, --from.

    Args:
        name: One of COMMANDS.
        args: What follows it.
        parser: The class of the parser, which says what errors look like.
    """
    function = load(name)
    doc = parse(_doc(function))
    cli = parser(prog=f"diffusion {name}", description=doc.short_description)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    texts = {x.arg_name: x.description for x in doc.params}
    many = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    flags = {p.name.rstrip("_"): p for p in parameters if p not in many}
    for p in many:
        cli.add_argument(p.name, nargs="+", type=p.annotation, help=texts.get(p.name))
    for flag, p in flags.items():
        needed: dict[str, Any] = {"type": p.annotation, "default": p.default}
        if p.annotation is bool:
            needed = {"action": "store_true"}
        elif p.default is p.empty:
            needed = {"type": p.annotation, "required": True}
        cli.add_argument(f"--{flag}", help=texts.get(p.name), **needed)
    values: dict[str, Any] = cli.parse_args(list(args)).as_dict()
    more = [value for p in many for value in values[p.name]]
    function(*more, **{p.name: values[flag] for flag, p in flags.items()})


def _doc(function: Callable[..., None]) -> str:
    return inspect.getdoc(function) or ""
