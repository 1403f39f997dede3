"""Texts are read once for all, before training starts."""

from pathlib import Path
from typing import Any

from torch import nn

from diffusion.networks.text import TextEncoder

CACHE = Path(".cache")


def remember(module: nn.Module, data: Any, cache: Path, progress: bool) -> None:
    """Lets every text encoder of a module read all texts of the data.

    Args:
        module: With any number of encoders.
        data: The data module; those with texts say so in `texts`.
        cache: The folder for files that are computed once.
        progress: Whether to draw a progress bar.

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
    for encoder in encoders:
        encoder.remember(texts or [], cache, progress)
