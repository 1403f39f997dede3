"""Reads all texts once, before training."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from diffusion.data import Images
from diffusion.networks.text.base import TextEncoder
from diffusion.systems.trainer import one_first


def remember(module: nn.Module, data: Images, cache: Path, trainer: L.Trainer | None) -> None:
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
    if not encoders:
        return
    if data.texts is None:
        raise ValueError(
            f"data: {type(data).__name__} has no texts; expected data with captions, such as Emoji "
            "or ImageText, for a network that reads them"
        )
    with one_first(trainer, "texts"):
        for encoder in encoders:
            encoder.remember(data.texts, cache, trainer is None or trainer.is_global_zero)
    for encoder in encoders:
        say_what_is_cut(encoder, data.texts)


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
