"""What can be known to fail before training starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from diffusion.denoiser import NetworkDenoiser
from diffusion.process import Process

LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 1,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
}


def check_trainer(options: Mapping[str, Any]) -> None:
    """Refuses what Lightning takes without a word and then fails with, or does nothing.

    Args:
        options: Of the trainer.

    Raises:
        ValueError: If a number is out of its range, or the run has no folder.
    """
    for key, least in LEAST.items():
        value = options.get(key)
        if value is not None and value < least:
            raise ValueError(f"trainer.{key}: {value}; expected at least {least}")
    steps, interval = options.get("max_steps", -1), options.get("val_check_interval")
    if steps != -1 and steps < 1:
        raise ValueError(f"trainer.max_steps: {steps}; expected at least 1, or -1 for no end")
    if isinstance(interval, int | float) and interval <= 0:
        raise ValueError(f"trainer.val_check_interval: {interval}; expected at least 1")
    run = options.get("default_root_dir")
    if not run or Path(run).is_file():
        raise ValueError(f"trainer.default_root_dir: {run!r}; expected a folder for the run")


def check_null(denoiser: NetworkDenoiser, p_uncond: float) -> None:
    """Refuses to forget what the network has no ∅ for.

    Raises:
        ValueError: If a condition is to be forgotten and has none.
    """
    network, conditions = denoiser.network, denoiser.conditions or frozenset()
    lacking = conditions.difference(getattr(network, "given", ()), getattr(network, "null", ()))
    if p_uncond and lacking:
        raise ValueError(
            f"model.p_uncond: {p_uncond}; expected 0, as the network has no ∅ for {min(lacking)} "
            "(null_class: true gives it one)"
        )


def check_forgotten(sampler: Any, trained: Mapping[str, Any], network: nn.Module) -> None:
    """Refuses to draw with ∅ what was not trained with it, or has none.

    Args:
        sampler: With `guidance`.
        trained: The settings of the training, with `p_uncond`; `start` if it began with the
            weights of another model, of which nothing is known.
        network: With `null`.

    Raises:
        ValueError: If a guidance asks for it.
    """
    for guide in sampler.guidance:
        kind = type(guide).__name__
        if guide.forgets and not getattr(network, "null", {}):
            raise ValueError(
                f"model.sampler.guidance: {kind}; expected a network that has conditions with a ∅, "
                f"{type(network).__name__} has nothing to forget"
            )
        if guide.forgets and trained.get("p_uncond") == 0 and trained.get("start") is None:
            raise ValueError(
                f"model.p_uncond: {trained['p_uncond']}; expected above 0 in training, as {kind} "
                f"with scale {getattr(guide, 'scale', None)} draws with ∅, which was never trained "
                "(scale 1 does without)"
            )


def check_variance(network: nn.Module, parts: Mapping[str, Any]) -> None:
    """Refuses a learned variance where the network does not put one out.

    Args:
        network: With `in_channels` and `out_channels`, or nothing is checked.
        parts: What may have `variance`, by its key.

    Raises:
        ValueError: If one of them wants it to be learned.
    """
    channels, out = getattr(network, "in_channels", None), getattr(network, "out_channels", None)
    for key, part in parts.items():
        learned = getattr(part, "variance", None) == "learned"
        if learned and isinstance(channels, int) and out != 2 * channels:
            raise ValueError(
                f"{key}: {type(part).__name__} uses a learned variance; expected "
                f"model.network.out_channels {2 * channels}, it is {out}"
            )


def check_data(network: nn.Module, data: Any) -> None:
    """Compares the network with the data: channels, size, number of classes.

    Raises:
        ValueError: If they do not fit.
    """
    wanted: Any = getattr(network, "num_classes", None)
    if data.num_classes and wanted and data.num_classes > wanted:
        raise ValueError(
            f"model.network.num_classes: {wanted}; expected at least the {data.num_classes} "
            f"classes of {type(data).__name__}"
        )
    check_channels(network, data)


def check_channels(network: nn.Module, data: Any, key: str = "model.network") -> None:
    """Compares the network with images: their channels, and what its depth divides.

    Args:
        network: With `in_channels` and `factor`, or nothing is checked.
        data: The data module.
        key: Where the network is.

    Raises:
        ValueError: If they do not fit.
    """
    if len(data.shape) == 3:
        channels, height, width = data.shape
        have: Any = getattr(network, "in_channels", channels)
        if have != channels:
            raise ValueError(
                f"{key}.in_channels: {have}; expected the {channels} of {type(data).__name__}"
            )
        factor: Any = getattr(network, "factor", 1)
        if height % factor or width % factor:
            raise ValueError(
                f"data: images of {type(data).__name__} are {height} x {width}; expected sides "
                f"that the network's depth divides, multiples of {factor}"
            )


def check_classifier(network: nn.Module, data: Any, crop: int) -> None:
    """Compares a classifier with the data: the classes, the very size of the images.

    Args:
        network: With `num_classes` and, if only one size will do, `image_size`.
        data: The data module.
        crop: How far training images are moved, in pixels.

    Raises:
        ValueError: If they do not fit.
    """
    kind, num_classes = type(data).__name__, getattr(network, "num_classes", None)
    if not data.num_classes:
        raise ValueError(f"data: {kind} has no labels; expected data with classes to tell apart")
    check_data(network, data)
    if num_classes != data.num_classes:
        raise ValueError(
            f"model.network.num_classes: {num_classes}; expected the {data.num_classes} classes "
            f"of {kind}"
        )
    check_size(network, data, crop)


def check_towers(image: nn.Module, process: Process | None, data: Any, crop: int) -> None:
    """Compares an image tower with the data, and with the times it will see.

    Args:
        image: With `T` if it counts its times, and as for `check_channels` and `check_size`.
        process: The forward process, or None for clean pictures.
        data: The data module.
        crop: How far training images are moved, in pixels.

    Raises:
        ValueError: If they do not fit.
    """
    key = "model.network.image"
    check_channels(image, data, key)
    check_size(image, data, crop, key)
    if process is not None and getattr(image, "T", process.T) != process.T:
        raise ValueError(f"{key}.T: {image.T}; expected {process.T}, as the process has it")


def check_size(network: nn.Module, data: Any, crop: int, key: str = "model.network") -> None:
    """Compares the very size of the images with a network that takes no other.

    Args:
        network: With `image_size`, if only one size will do.
        data: The data module.
        crop: How far training images are moved, in pixels.
        key: Where the network is.

    Raises:
        ValueError: If they do not fit.
    """
    kind, size = type(data).__name__, getattr(network, "image_size", None)
    if size is not None and tuple(data.shape[1:]) != (size, size):
        raise ValueError(
            f"{key}.image_size: {size}; expected {data.shape[-1]}, as {kind} is "
            f"{' x '.join(map(str, data.shape[1:]))}"
        )
    if crop and (len(data.shape) != 3 or crop >= min(data.shape[1:])):
        raise ValueError(
            f"model.crop: {crop}; expected less than the sides of the images, {data.shape} here"
        )
