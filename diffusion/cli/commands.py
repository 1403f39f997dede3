"""Commands that need no trainer: a typed function each, whose docstring is its help."""

import ast
import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from diffusion.cli import arguments

COMMANDS = {
    "align": "diffusion.editing.align.align",
    "average": "diffusion.cli.choosing.average.average",
    "caption": "diffusion.cli.captioning.caption.caption",
    "compare": "diffusion.metrics.report.compare.compare",
    "export": "diffusion.cli.convert.export",
    "import": "diffusion.cli.convert.import_",
    "interpolate": "diffusion.editing.interpolate.interpolate",
    "interval": "diffusion.cli.choosing.interval.interval",
    "invert": "diffusion.editing.invert.invert",
    "prepare": "diffusion.data.reading.prepare.prepare",
    "reword": "diffusion.editing.reword.reword",
    "swap": "diffusion.editing.swap.swap",
    "truncate": "diffusion.editing.truncate.truncate",
}
PACKAGE = Path(__file__).parents[1]


def overview() -> str:
    """Returns the help of `diffusion`."""
    first = {name: (declared(name).__doc__ or "").splitlines()[0] for name in COMMANDS}
    return "\n".join(
        [
            f"usage: diffusion {'|'.join(arguments.COMMANDS)} --config FILE ... --KEY VALUE ...",
            f"       diffusion {'|'.join(COMMANDS)} ...",
            "",
            *(f"  {name:13}{text}" for name, text in (arguments.COMMANDS | first).items()),
            "",
            *arguments.ORDER.replace(". ", ".\n").splitlines(),
            "`diffusion COMMAND --help` lists the keys; --print_config shows what they amount to.",
        ]
    )


def declared(name: str) -> Callable[..., None]:
    """Returns a function with a command's signature and docstring, and nothing in it.

    They are read from its file, as importing that takes seconds.
    """
    module, _, function = COMMANDS[name].rpartition(".")
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == function)
    found.body = found.body[:1]
    scope: dict[str, Any] = {"Literal": Literal}
    exec(compile(ast.Module([found], []), str(path), "exec"), scope)
    return scope[function]


def imported(name: str) -> Callable[..., None]:
    """Returns the function of a command."""
    module, _, function = COMMANDS[name].rpartition(".")
    return getattr(import_module(module), function)


def run(name: str, args: Sequence[str]) -> None:
    """Parses a command's arguments and calls its function.

    `*more` is positional; every other parameter is a flag, required if it has no default. A flag
    whose parameter is a list may be repeated. A name that Python keeps for itself has an underscore
    at its end, the flag has not: `from_`, --from.

    Args:
        name: One of COMMANDS.
        args: What follows it.
    """
    from docstring_parser import parse

    from diffusion.cli.parser import OneLine

    function = declared(name)
    doc = parse(function.__doc__ or "")
    texts = {x.arg_name: x.description for x in doc.params}
    cli = OneLine(prog=f"diffusion {name}", description=doc.short_description)
    parameters = inspect.signature(function).parameters.values()
    more = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    flags = {p.name.rstrip("_"): p for p in parameters if p not in more}
    for p in more:
        cli.add_argument(p.name, nargs="+", type=p.annotation, help=texts.get(p.name))
    for flag, p in flags.items():
        default = {"required": True} if p.default is p.empty else {"default": p.default}
        kind: dict[str, Any] = {"type": p.annotation, **default}
        kind = {"action": "store_true"} if p.annotation is bool else kind
        cli.add_argument(f"--{flag}", help=texts.get(p.name), **kind)
    lists = [flag for flag, p in flags.items() if "list" in str(p.annotation)]
    words = arguments.once(arguments.split(args, bool(more)), lists)
    values: dict[str, Any] = cli.parse_args(list(map(str, words))).as_dict()
    imported(name)(
        *(value for p in more for value in values[p.name]),
        **{p.name: values[flag] for flag, p in flags.items()},
    )
