"""What can be known to fail before training starts."""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffusion.interop.weights import read
from diffusion.process import Process
from diffusion.spec import DataSpec


def check_run(run: Path, resuming: bool) -> None:
    """Refuses to train over a finished or interrupted run.

    Raises:
        FileExistsError: If the folder has a checkpoint and training does not resume from it.
    """
    last = run / "checkpoints" / "last.ckpt"
    if last.exists() and not resuming:
        raise FileExistsError(
            f"trainer.default_root_dir: {run} has a run already ({last}); expected "
            "--ckpt_path last to go on with it, or another --trainer.default_root_dir"
        )


def check_null(network: nn.Module, p_uncond: float) -> None:
    """Refuses to forget what the network has no ∅ for.

    Raises:
        ValueError: If a condition is to be forgotten and has none.
    """
    null: Any = getattr(network, "null", {})
    conditions: Any = set(getattr(network, "conditions", null)) - set(getattr(network, "given", ()))
    if p_uncond and (lacking := sorted(conditions - set(null))):
        raise ValueError(
            f"model.p_uncond: {p_uncond}; expected 0, as the network has no ∅ for {lacking[0]} "
            "(null_class: true gives it one)"
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


def check_given(sampler: Any, network: nn.Module, data: Any) -> None:
    """Refuses to continue from pictures that are not there, and pictures that nothing looks at.

    Args:
        sampler: With `needs` and `strength`.
        network: With `conditions`, perhaps.
        data: The data module.

    Raises:
        ValueError: If what the sampler needs is not in the data's requests, or the other way round.
    """
    if missing := {"known", "mask"} & sampler.needs:
        missing -= set(data.on_after_batch_transfer(data.request([0]), 0))
    why = "for Inpaint" if sampler.strength == 1 else f"as sampler.strength is {sampler.strength}"
    if "known" in missing:
        raise ValueError(f"data.edit: null; expected a picture or a folder of pictures, {why}")
    if "mask" in missing:
        raise ValueError("data.mask: null; expected a picture or x0,y0,x1,y1 for Inpaint")
    edit, mask = getattr(data, "edit", None), getattr(data, "mask", None)
    inpaints = "mask" in sampler.needs or "mask" in (getattr(network, "conditions", ()) or ())
    if mask is not None and not inpaints:
        raise ValueError(
            f"data.mask: {mask!r}; expected null, or Inpaint in sampler.guidance, or an Inpainter "
            "network, as nothing looks at it"
        )
    if edit is not None and mask is None and sampler.strength == 1:
        also = "what to repaint in data.mask, or " if inpaints else ""
        raise ValueError(f"data.edit: {edit!r}; expected {also}sampler.strength below 1")


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


def check_checkpoint(module: nn.Module, path: Path) -> None:
    """Compares a checkpoint's tensors with the model's, which hears what it was trained on.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, or the file is none.
    """
    saved = read(path, "ckpt_path")
    check_tensors(module.state_dict(), saved["state_dict"], f"ckpt_path: {path}", same_shape)
    module.expects = DataSpec.read(saved)  # pyright: ignore[reportArgumentType]


def check_tensors(
    mine: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    file: str,
    fits: Callable[[str, Tensor, Tensor], bool],
) -> None:
    """Compares the tensors of a file with a model's.

    Args:
        mine: The model's, by name.
        saved: The file's.
        file: What errors call it.
        fits: Whether the tensor of a name, mine and the file's, can be copied.

    Raises:
        ValueError: If one is missing, unexpected, or does not fit.
    """
    for name in (*mine, *saved):
        here, there = mine.get(name), saved.get(name)
        if here is None or there is None or not fits(name, here, there):
            was = "nothing" if there is None else tuple(there.shape)
            want = "nothing" if here is None else tuple(here.shape)
            raise ValueError(f"{file} is of another model: {name} is {was}, expected {want}")


def same_shape(name: str, here: Tensor, there: Tensor) -> bool:
    """Whether both have the same shape."""
    return here.shape == there.shape


def fingerprint(path: str | None) -> str | None:
    """Returns 16 digits that change with what a checkpoint file holds; other texts as they are."""
    if path is None or not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as records:
        sums = [(record.filename, record.CRC) for record in records.infolist()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
