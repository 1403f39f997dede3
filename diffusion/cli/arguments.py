"""What stands on the command line: files in front, then flags, a whole before its parts.

What is wrong with it is said before Lightning is imported, which takes many seconds; so this needs
no more than the standard library and, for the files, YAML.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.cli.errors import most_like, unknown_key
from diffusion.common.files import decoded, file_of

COMMANDS = {
    "fit": "Trains a model.",
    "validate": "Evaluates the loss of a checkpoint at fixed times and noise.",
    "test": "Measures what a checkpoint draws.",
    "predict": "Draws, and writes pictures to files.",
}
SECTIONS = (
    *("checkpoint", "ema", "likelihood", "metrics", "samples", "snapshots", "trainer", "writer"),
)
KEYS = (
    *"ckpt_path config data help model print_config prompt prompts return_predictions".split(),
    *("compile", "seed_everything", "tf32", "trust", "upsample_prompt", "verbose", "wandb"),
    *("weights_only", *SECTIONS),
)
PARTS = (
    *("network", "process", "parameterization", "objective", "sampler", "p_uncond"),
    *("optimizer", "lr_scheduler", "start", "codec"),
)
NAMED = ("last", "best", "hpc", "null")  # checkpoints that are no paths
ALONE = ("aligned", "help", "print_config", "spell", "trust")  # flags without a value
YAML = (".yaml", ".yml", ".json")
ORDER = (
    "Flags win over files wherever they stand, and a later --config over an earlier one. "
    "Flags may stand in any order; --prompt and --prompts may be repeated, of another flag the "
    "last counts."
)


@dataclass(frozen=True)
class Flag:
    """--key value, --key=value, --key or, without a key, just a value.

    Attributes:
        key: Without dashes, such as "trainer.max_steps" or "model.sampler.guidance+".
        value: The text behind it, or None if there is none.
    """

    key: str
    value: str | None = None

    def __str__(self) -> str:
        parts = [f"--{self.key}"] * bool(self.key) + [self.value] * (self.value is not None)
        return "=".join(map(str, parts))


def check_arguments(args: Sequence[str], others: Iterable[str] = ()) -> list[Flag]:
    """Returns the flags of a command with a trainer, or refuses what cannot be right.

    Args:
        args: What follows the program's name.
        others: Names of commands without a trainer.

    Raises:
        ValueError: If there is no such command, section or form of a flag, or no YAML in a file.
        FileNotFoundError: If there is no such file.
    """
    name, known = args[0] if args else "", [*COMMANDS, *others]
    if name not in COMMANDS:
        near = most_like(name, known)
        perhaps = f"; perhaps '{near}'" if near else ""
        right = f"expected one first: {', '.join(known)}, as in `diffusion fit --config FILE`"
        raise ValueError(f"{name}: no such command; {right}{perhaps}")
    flags = split(args[1:])
    for flag in flags:
        check_key(flag.key)
        if flag.key == "config":
            read_config(flag.value or "")
        if flag.key == "ckpt_path" and flag.value not in NAMED:
            if not file_of(Path(str(flag.value))).is_file():
                text = "expected a checkpoint or an exported folder, there is none"
                raise FileNotFoundError(f"ckpt_path: {flag.value}; {text}")
    return flags


def arranged(args: Sequence[str]) -> list[str]:
    """Returns the arguments in an order in which nothing that was said is lost.

    Configurations come first, so that flags win over them. A flag for a whole comes before those
    for its parts, as in `--data.root X --data ImageFolder`. Of a flag that is repeated the last
    value counts, and one line says so; prompts are all kept.
    """
    flags = check_arguments(args)
    files = [flag for flag in flags if flag.key == "config"]
    ordered: list[Flag] = []
    for flag in once([flag for flag in flags if flag.key != "config"], ("prompt", "prompts")):
        whole = (f"{flag.key}.", f"{flag.key}+")
        at = (i for i, part in enumerate(ordered) if part.key.startswith(whole))
        ordered.insert(next(at, len(ordered)), flag)
    return [args[0], *map(str, files), *map(str, ordered)]


def split(words: Sequence[str], bare: bool = False) -> list[Flag]:
    """Returns the flags that words are; values without a flag, if they may be bare, come first.

    Raises:
        ValueError: If a word is none, or a value is missing.
    """
    flags, words = [], [{"-c": "--config", "-h": "--help"}.get(word, word) for word in words]
    while words:
        word = words.pop(0)
        key, given, value = word.removeprefix("--").partition("=")
        if bare and not word.startswith("-"):
            flags.append(Flag("", word))
        elif not word.startswith("--") or not key:
            raise ValueError(f"{word}: no flag; expected --KEY VALUE{_meant(word)}")
        elif given or key in ALONE:
            flags.append(Flag(key, value if given else None))
        elif words and _is_value(words[0]):
            flags.append(Flag(key, words.pop(0)))
        elif key.endswith(".help"):
            flags.append(Flag(key))
        else:
            raise ValueError(f"{key}: no value; expected one, --{key} VALUE")
    return sorted(flags, key=lambda flag: flag.key != "")


def once(flags: Sequence[Flag], lists: Iterable[str] = ()) -> list[Flag]:
    """Returns the flags without earlier values of one that is repeated, and says so.

    Mappings and files of a section are layers, and are all kept, as is what is added to a list.
    For all flags of a key in `lists` one with a list of their values stands; other lists must not
    be given twice.

    Raises:
        ValueError: If a list is given twice.
    """
    found: dict[str, list[str]] = {key: [] for key in lists}
    for flag in flags:
        if flag.key in found and flag.value not in (None, "null"):
            found[flag.key].append(str(flag.value))
    kept, last = [], {flag.key: flag for flag in flags}
    for flag in flags:
        value, final = str(flag.value), str(last[flag.key].value)
        layer = value.startswith("{") or value.endswith(YAML)
        if found.get(flag.key):
            continue
        if last[flag.key] is flag or layer or not flag.key or flag.key.endswith("+"):
            kept.append(flag)
        elif "[" in (value[:1], final[:1]) and value != final:
            raise ValueError(
                f"{flag.key}: given twice, {value} and {final}; expected one list with all of it"
            )
        elif value != final:
            sys.stderr.write(f"{flag.key}: given twice, {value} and {final}; {final} counts\n")
    return kept + [Flag(k, json.dumps(v, ensure_ascii=False)) for k, v in found.items() if v]


def check_key(key: str) -> None:
    """Refuses a key whose section does not exist.

    A name without a section may be meant for one that only the parser knows, which says so.

    Raises:
        ValueError: If there is no such section.
    """
    first, dot, _ = key.partition(".")
    if first.rstrip("+") not in KEYS:
        known = [*KEYS, *(f"model.{part}" for part in PARTS)]
        line = unknown_key(key.rstrip("+"), known, 0.6 if dot else 0.75)
        if dot or not line.endswith("--help"):
            raise ValueError(line)


def read_config(value: str) -> dict[str, Any]:
    """Returns what a configuration, a path or its text in braces, says; {} of a pipe or an address.

    Refuses what is no YAML, or has a section that does not exist or is no mapping.
    """
    from diffusion.cli.yaml_reader import read_yaml

    path, where = Path(value).expanduser(), f"config: {value}"
    if value.lstrip().startswith("{"):
        config: Any = read_yaml(value, "config")
    elif "://" in value:  # read by fsspec
        return {}
    elif not value or not path.exists():
        siblings = path.parent.glob("*.y*ml") if value else ()
        files = {file.name: file for file in [*Path("configs").rglob("*.yaml"), *siblings]}
        near = most_like(path.name, files)
        right = f"; the nearest is {files[near]}" if near else ""
        raise FileNotFoundError(f"config: {value!r}; expected a file, there is none{right}")
    elif path.is_dir():
        raise ValueError(f"{where}; expected a file, this is a folder")
    elif not path.is_file():  # a pipe, which can be read only once
        return {}
    else:
        config = read_yaml(decoded(path, "config"), where)
    if not isinstance(config, dict):
        was = "it is empty" if config is None else f"it is a {type(config).__name__}"
        raise ValueError(f"{where}; expected sections such as model and trainer, {was}")
    for key, section in config.items():
        first = [*section][:1] if isinstance(section, dict) else []
        check_key(".".join(map(str, [key, *first])))
        if key in SECTIONS and not isinstance(section, dict | str):
            raise ValueError(f"{key}: {json.dumps(section)}; expected keys with values below it")
    return config


def _is_value(word: str) -> bool:
    """Whether a word behind a flag is its value: it has no dash, or is a number or a text."""
    return not word.startswith("-") or re.fullmatch(r"-([\d.]\S*|inf)|-\S*\s.*", word) is not None


def _meant(word: str) -> str:
    if re.match(r"-\w", word):
        return f"; perhaps -{word}"
    if "=" in word:
        return f"; perhaps --{word}"
    return f"; perhaps --config {word}" if word.endswith(YAML) else ""
