"""Options of diffusers' configurations, of which those without a counterpart here are refused."""

from collections.abc import Mapping
from typing import TypeVar

from diffusion.interop.presets import Settings

T = TypeVar("T")


def check_fixed(file: str, config: Settings, fixed: Settings) -> None:
    """Refuses options that have another value than the only one of ours; absent, they have it.

    Raises:
        ValueError: If one has.
    """
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise ValueError(f"{file}: {key} is {config[key]}; expected {value}")


def translated(file: str, key: str, value: object, table: Mapping[str, T]) -> T:
    """Returns what an option's value is here, by a table of all that are known.

    Raises:
        ValueError: If it is none of them.
    """
    if str(value) not in table:
        raise ValueError(f"{file}: {key} is {value}; expected one of {', '.join(table)}")
    return table[str(value)]
