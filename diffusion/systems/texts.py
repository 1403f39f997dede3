"""Reads all texts, and encodes all pictures, once, before training."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from diffusion.codec import Codec, Pixels
from diffusion.common.hashing import digest, weights_digest
from diffusion.common.progress import bar
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
    # One that reads by means of another leaves it to that.
    encoders = [one for one in encoders if sum(part in encoders for part in one.modules()) == 1]
    if not encoders:
        return
    texts = texts_of(data)
    with one_first(trainer, "texts"):
        for encoder in encoders:
            encoder.remember(texts, cache, trainer is None or trainer.is_global_zero)
    for encoder in encoders:
        say_what_is_cut(encoder, texts)


def texts_of(data: Images) -> Sequence[str]:
    """Returns all texts of the data.

    Raises:
        ValueError: If it has none.
    """
    if data.texts is None:
        raise ValueError(
            f"data: {type(data).__name__} has no texts; expected data with captions, such as Emoji "
            "or ImageText, for a network that reads them"
        )
    return data.texts


def remember_pictures(module: nn.Module, data: Images, cache: Path, trainer: L.Trainer) -> None:
    """Lets every codec of a module encode all pictures of training and validation.

    Args:
        module: As for `remember`, like all that are not listed here.
        data: The data module.
        cache: The folder for files that are computed once.
        trainer: Whose first process of a machine encodes them.
    """

    def pictures() -> Iterator[Tensor]:
        validation = (batch["image"] for batch in data.batches("val"))
        with bar("pictures", trainer.is_global_zero) as shown:
            task = shown.add_task("Encoding pictures, once", total=None)
            for images in chain(data.shown(), validation):
                yield images
                shown.advance(task, len(images))

    for codec in module.modules():
        if isinstance(codec, Codec) and not isinstance(codec, Pixels):
            prints = [data.fingerprint(split) for split in ("train", "val")]
            key = digest([weights_digest(codec.state_dict()), *prints, data.flip])
            with one_first(trainer, "pictures"):
                codec.remember(pictures, cache.expanduser() / f"z-{key}.safetensors")


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
