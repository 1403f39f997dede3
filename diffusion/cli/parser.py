"""A parser whose errors are one line that names what would have been right."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from diffusion.cli import yaml_reader
from diffusion.cli.errors import one_line

TRACEBACK = "DIFFUSION_TRACEBACK"


class OneLine(ArgumentParser):
    """A parser that ends the program with one line and code 2, where others show their usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with code 2."""
        if not self.exit_on_error or os.environ.get(TRACEBACK):
            super().error(message, ex)
        fail(one_line(message, known(self)))

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Any:
        """Parses the arguments of a command line.

        jsonargparse hands on what is inside of a nested class as "--key=value", made of a value
        that it has read already, and so a null as the text "None".
        """
        if isinstance(args, list) and len(args) == 1 and args[0].endswith("=None"):
            args = [f"{args[0].removesuffix('None')}null"]
        return super().parse_args(args, *more, **kwargs)

    def parse_object(self, obj: Any, namespace: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Parses an object on top of another, and once if they are the same.

        jsonargparse checks values of classes on top of themselves, which would double the time at
        every level that they are nested; and it takes null for a value of any type.
        """
        for action in self._actions:
            key, hint = str(action.dest), getattr(action, "_typehint", None)
            if action.default is None or hint is Any or type(None) in get_args(hint):
                continue
            if key in obj and obj[key] is None:
                self.error(f'Parser key "{key}":\n  Expected a {hint}\n  Given value: None')
        base = None if namespace == obj else namespace
        return super().parse_object(obj, base, *args, **kwargs)


def known(parser: ArgumentParser) -> dict[str, Any]:
    """Returns the keys that a parser and its subcommands know, with the types of their values."""
    subcommands = parser._subcommands_action
    parsers = [parser, *(subcommands.choices if subcommands else {}).values()]
    found = [action for p in parsers for action in p._actions]
    return {str(action.dest): getattr(action, "_typehint", None) for action in found}


def fail(message: str) -> NoReturn:
    """Prints one line, without what a terminal would obey, and ends the program with code 2."""
    shown = "".join(c if c.isprintable() else "?" for c in message)
    sys.stderr.write(f"diffusion: error: {shown}\n")
    raise SystemExit(2)


def load_once(text: str) -> Any:
    """Reads YAML as the parser does, and refuses a mapping with a key twice, wherever it stands."""
    try:
        if text.count(":") > 1:
            yaml.compose(text, Loader=yaml_reader.Once)
        return LOAD(text)
    except yaml_reader.Twice as error:
        fail(f"{yaml_reader.problem(error)} of {text.strip()[:100]!r}; expected it once")


LOAD = get_loader("yaml")
set_loader("yaml", load_once, (yaml.YAMLError,))
