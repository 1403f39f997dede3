"""YAML in which no key of a mapping is there twice, since the last would win without a word."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class Twice(ConstructorError):
    """A key that is there twice."""


def checked(text: str) -> str:
    """Returns the text.

    Raises:
        YAMLError: If it is no YAML, or a mapping in it has a key twice.
    """
    if text.count(":") < 2:
        return text
    root = yaml.compose(text, Loader=LOADER)
    left, seen = [root] if root is not None else [], set()
    while left:
        node = left.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for i, (key, _) in enumerate(node.value):
                if isinstance(key, yaml.ScalarNode) and key.value in keys[:i]:
                    text = f"the key {key.value!r} is there twice"
                    raise Twice(None, None, text, key.start_mark)
            left.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            left.extend(node.value)
    return text


def read_yaml(text: str, where: str) -> Any:
    """Returns what a YAML text says.

    Args:
        text: The text.
        where: What errors call it, such as "config: my.yaml".

    Raises:
        ValueError: If it is no YAML, or a mapping in it has a key twice.
    """
    try:
        return yaml.load(checked(text), Loader=LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}; expected YAML, {problem(error)}") from error


def problem(error: yaml.YAMLError) -> str:
    """Returns what is wrong and in which line."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return str(error).splitlines()[0]
    return f"{error.problem}, in line {error.problem_mark.line + 1}"
