"""The configuration that a checkpoint carries, as the first layer of the command line."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.utilities import rank_zero_warn

from diffusion.callbacks.save_config import CONFIG
from diffusion.cli import arguments
from diffusion.common import weights
from diffusion.common.files import MODEL, file_of
from diffusion.common.validate import first_few
from diffusion.interop.presets import Settings
from diffusion.systems.checkpoints.declared import check_network
from diffusion.systems.checkpoints.trust import TRUST, Taken, loaded, trusting, user_words

OF_ONE_COMMAND = (
    *("ckpt_path", "weights_only", "verbose", "return_predictions"),
    *(
        "prompt",
        "prompts",
        "upsample_prompt",
    ),  # the data has the texts, and another flag may ask for others
)
PLACE = ("accelerator", "devices", "num_nodes", "strategy")  # where it was trained
PARTS = {"model": L.LightningModule, "data": L.LightningDataModule}
FLAG = "--trust"


def checkpoint_path(args: Sequence[str]) -> str | None:
    """Returns what --ckpt_path says, or None."""
    flags = {flag.key: flag.value for flag in arguments.split(args[1:])}
    return flags.get("ckpt_path")


@contextmanager
def from_checkpoint(
    args: Sequence[str], sections: Mapping[str, type] | None = None
) -> Iterator[list[str]]:
    """Yields the arguments, with the checkpoint's own configuration in front of the user's.

    `--config` and flags come later and so win over what was trained with. What `Taken` does not
    take of it is taken with `--trust` only. The run is where the checkpoint lies.

    Args:
        args: What follows the program's name.
        sections: The class of each section of the configuration that gives the arguments of one.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        ValueError: If it cannot be read, or asks for what is not taken.
    """
    said, trust = [arg for arg in args if arg != FLAG], FLAG in args
    path = checkpoint_path(said)
    with trusting(trust, user_words(said)):
        if path is None or path in arguments.NAMED or said[0] not in arguments.COMMANDS:
            yield said
            return
        layer = first_layer(Path(path), sections or {})
        if said[0] != "fit":  # others may draw and measure where there is no such processor
            layer["trainer"] = {k: v for k, v in layer["trainer"].items() if k not in PLACE}
        yield [said[0], f"--config={in_braces(layer)}", *said[1:]]


def in_braces(config: Mapping[str, Any]) -> str:
    """Returns a configuration in braces, as --config takes it instead of a file."""
    return yaml.safe_dump(dict(config), default_flow_style=True, allow_unicode=True)


def first_layer(path: Path, sections: Mapping[str, type]) -> Settings:
    """Returns what a checkpoint's own configuration says, and which folder its run has."""
    file = f"ckpt_path: {path}"
    content = read_checkpoint(path)
    run: Settings = {"trainer": {"default_root_dir": str(run_of(path))}}
    if content.get(CONFIG) is None:
        return run
    config = loaded(content[CONFIG], file)
    if TRUST.get() is None:
        return run | {k: v for k, v in config.items() if k not in OF_ONE_COMMAND}
    taken = Taken(file)
    found = taken.configuration(config, PARTS, sections)
    check_network(found.get("model", {}), content["state_dict"], file)
    if taken.left:
        rank_zero_warn(
            f"{file}: left out of its configuration: {first_few(taken.left)} "
            f"({FLAG} takes all of a file that you made)"
        )
    return {**found, "trainer": {**found.get("trainer", {}), **run["trainer"]}}


def run_of(path: Path) -> Path:
    """Returns the folder of a checkpoint's run: where it lies, or a new one under its name."""
    for place in (path, path.absolute()):
        if place.parent.name == "checkpoints":
            return place.parent.parent
    file = file_of(path).absolute()
    return Path("runs") / (file.parent.name if file.name == MODEL else path.stem)


def read_checkpoint(path: Path, key: str = "ckpt_path") -> dict[str, Any]:
    """Returns what a checkpoint holds; its configuration, if it has one, is under "config"."""
    content = weights.read(path, key)
    return {**content, "state_dict": weights.state(content, key, path)}


def model_of(content: Mapping[str, Any], file: str) -> Settings:
    """Returns what is taken of the model section of what `read_checkpoint` returned.

    Raises:
        ValueError: If it has none, or asks for what is not taken.
    """
    if content.get(CONFIG) is None:
        raise ValueError(f"{file}; expected one with its configuration, as fit writes it")
    section = loaded(content[CONFIG], file).get("model")
    if not isinstance(section, Mapping):
        raise ValueError(f"{file}; expected a configuration with a model section")
    if TRUST.get() is None:
        return dict(section)
    found = Taken(file).object(section, L.LightningModule, "model")
    check_network(found, content["state_dict"], file)
    return found
