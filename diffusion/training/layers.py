"""The configuration that a checkpoint carries, as the first layer of the command line."""

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from diffusion.interop import weights
from diffusion.training.callbacks.config import CONFIG

COMMANDS = ("fit", "validate", "test", "predict")
OF_ONE_COMMAND = (
    *("ckpt_path", "weights_only", "verbose", "return_predictions"),
    *("prompt", "prompts"),  # the data has the texts, and another flag may ask for others
)


def checkpoint_path(args: Sequence[str]) -> str | None:
    """Returns what --ckpt_path says, or None."""
    for i, arg in enumerate(args):
        if arg == "--ckpt_path" and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith("--ckpt_path="):
            return arg.split("=", 1)[1]
    return None


@contextmanager
def from_checkpoint(args: Sequence[str]) -> Iterator[list[str]]:
    """Yields the arguments, with the checkpoint's own configuration in front of the user's.

    `--config` and flags come later and so win over what was trained with.

    Args:
        args: What follows the program's name.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        ValueError: If it cannot be read.
    """
    path = checkpoint_path(args)
    if not args or args[0] not in COMMANDS or path in (None, "last", "best", "hpc", "null"):
        yield list(args)
        return
    text = read(Path(str(path)))
    if text is None:
        yield list(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.yaml"
        config = yaml.safe_load(text)
        file.write_text(
            yaml.safe_dump({k: v for k, v in config.items() if k not in OF_ONE_COMMAND})
        )
        yield [args[0], "--config", str(file), *args[1:]]


def read(path: Path, key: str = "ckpt_path") -> str | None:
    """Returns the configuration inside a checkpoint, or None if it was made without one.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        ValueError: If it is something else, or would need code to be run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{key}: {path}; expected a checkpoint file, there is none")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{key}: {path}; expected a checkpoint of this project, "
            "this file is cut short or something else"
        )
    checkpoint = weights.read(path, key)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{key}: {path}; expected a Lightning checkpoint with a state_dict")
    return checkpoint.get(CONFIG)
