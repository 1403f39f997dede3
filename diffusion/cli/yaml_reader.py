"""YAML in which no key of a mapping is there twice, since the last would win without a word."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError

FAST = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # for what we wrote ourselves


class Twice(ConstructorError):
    """A key that is there twice."""


class Once(yaml.SafeLoader):
    """A reader that refuses a mapping with a key twice, wherever it stands."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Returns the mapping, with its merges still apart."""
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise Twice(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


def read_yaml(text: str, where: str) -> Any:
    """Returns what a YAML text says; errors call it something like "config: my.yaml"."""
    try:
        return yaml.load(text, Loader=Once)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}; expected YAML, {problem(error)}") from error


def problem(error: yaml.YAMLError) -> str:
    """Returns what is wrong and in which line."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return str(error).splitlines()[0]
    return f"{error.problem}, in line {error.problem_mark.line + 1}"
