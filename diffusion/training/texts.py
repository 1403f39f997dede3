"""Texts: what is asked for on the command line, and reading all of them once, before training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from diffusion.networks.text import TextEncoder
from diffusion.training.arguments import decoded
from diffusion.training.gather import one_first

LARGEST = 2**26  # bytes of a file with prompts: about a million


def remember(module: nn.Module, data: Any, cache: Path, trainer: L.Trainer | None) -> None:
    """Lets every text encoder of a module read all texts of the data.

    One process of a machine does; the others then find in the cache what it computed.

    Args:
        module: With any number of encoders.
        data: The data module; those with texts say so in `texts`.
        cache: The folder for files that are computed once.
        trainer: Whose first process draws a progress bar; None for this process alone.

    Raises:
        ValueError: If there is an encoder and no text.
    """
    encoders = [part for part in module.modules() if isinstance(part, TextEncoder)]
    texts = getattr(data, "texts", None)
    if encoders and texts is None:
        raise ValueError(
            f"data: {type(data).__name__} has no texts; expected data with captions, such as Emoji "
            "or ImageText, for a network that reads them"
        )
    if encoders:
        with one_first(trainer, "texts"):
            for encoder in encoders:
                encoder.remember(texts or [], cache, trainer is None or trainer.is_global_zero)
    for encoder in encoders:
        say_what_is_cut(encoder, texts or [])


def say_what_is_cut(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """Warns once of all texts that are longer than what an encoder reads."""
    long = {t: n for t, n in zip(texts, encoder.sizes(texts)) if n > encoder.length}
    if long:
        worst = max(long, key=lambda text: long[text])
        shown = f"{worst[:60]} …" if len(worst) > 60 else worst
        rank_zero_warn(
            f"{type(encoder).__name__}.length: {encoder.length}; {len(long)} of {len(texts)} texts "
            f"have more tokens and are cut, the longest, {shown!r}, has {long[worst]}"
        )


def asked(prompt: list[str] | str | None, files: list[str] | str | None) -> list[str] | None:
    """Returns the texts to draw, or None if none was given.

    Args:
        prompt: A text, or several.
        files: A file with a text on each line, or several; empty lines are left out.

    Raises:
        ValueError: If there are both, a file holds no text, or is in another encoding than UTF-8
            or UTF-16 with its mark.
        FileNotFoundError: If a file is missing.
    """
    if prompt is not None and files is not None:
        raise ValueError("prompt: it was given beside prompts; expected one of the two")
    if files is None:
        return [prompt] if isinstance(prompt, str) else prompt
    return [text for file in ([files] if isinstance(files, str) else files) for text in lines(file)]


def lines(file: str) -> list[str]:
    """Returns the lines of a file that are not empty; errors as for `asked`."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"prompts: {file}; expected a file of texts, there is none")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"prompts: {file} has {size:,} bytes; expected at most {LARGEST:,}")
    found = [line.strip() for line in decoded(path, "prompts").splitlines()]
    if not any(found):
        raise ValueError(f"prompts: {file}; expected a text on each line, it is empty")
    return [line for line in found if line]
