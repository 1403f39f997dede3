"""What can be known to fail before training starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.condition import Forget, named_after
from diffusion.networks import Network
from diffusion.objective import Objective
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import Step


def check_forgetting(network: Network, p_uncond: float | Sequence[Forget]) -> None:
    """Refuses to forget what the network has no ∅ for.

    Raises:
        ValueError: If a probability is out of its range, or a condition has no ∅.
    """
    key = "model.p_uncond"
    if isinstance(p_uncond, int | float):
        if not 0 <= p_uncond <= 1:
            raise ValueError(f"{key}: {p_uncond}; expected 0 … 1")
        lacking = set(network.conditions or ()).difference(network.required, network.null)
        if p_uncond and lacking:
            raise ValueError(
                f"{key}: {p_uncond}; expected 0, as the network has no ∅ for {min(lacking)} "
                "(null_class: true gives it one)"
            )
        return
    for row in p_uncond:
        if not 0 <= row.p <= 1:
            raise ValueError(f"{key}.p: {row.p}; expected 0 … 1")
        unknown = [name for name in row.keys if not named_after(name, network.null)]
        if unknown or not row.keys:
            raise ValueError(
                f"{key}.keys: {unknown}; expected some conditions with a ∅, of {list(network.null)}"
            )
    if (total := sum(row.p for row in p_uncond if row.exclusive)) > 1 + 1e-9:
        raise ValueError(f"{key}: {total} for all exclusive rows; expected at most 1")


def forgotten(network: Network, p_uncond: Any) -> set[str]:
    """Returns the conditions that training forgets now and then.

    Args:
        network: The network.
        p_uncond: What training was told, as an object or as a checkpoint has it.
    """
    if isinstance(p_uncond, int | float):
        return set(network.null) if p_uncond else set()
    rows = [row if isinstance(row, Forget) else Forget(**row) for row in p_uncond]
    names = [name for row in rows if row.p for name in row.keys]
    return {key for name in names for key in named_after(name, network.null)}


def check_forgotten(sampler: Sampler, trained: Mapping[str, Any], network: Network) -> None:
    """Refuses to draw with ∅ what was not trained with it, or has none.

    Args:
        sampler: What draws.
        trained: The settings of the training, with `p_uncond`; `start` if it began with the
            weights of another model, of which nothing is known.
        network: What was trained.

    Raises:
        ValueError: If a guidance asks for it.
    """
    for guide in sampler.guidance:
        kind, wanted = type(guide).__name__, guide.forgets(network.null)
        p_uncond = trained.get("p_uncond")
        if p_uncond is None or trained.get("start") is not None:
            continue
        if never := [key for key in wanted if key not in forgotten(network, p_uncond)]:
            raise ValueError(
                f"model.p_uncond: {p_uncond}; expected above 0 in training, as {kind} draws with "
                f"∅ for {never[0]}, which was never trained (scale 1 does without)"
            )


def check_variance(network: Network, parts: Mapping[str, Objective | Step]) -> None:
    """Refuses a learned variance where the network is known not to put one out.

    Args:
        network: What is trained.
        parts: What may want it, by its key.

    Raises:
        ValueError: If one of them wants it to be learned.
    """
    channels, out = network.in_channels, network.out_channels
    for key, part in parts.items():
        if part.variance == "learned" and channels and out != 2 * channels:
            raise ValueError(
                f"{key}: {type(part).__name__} uses a learned variance; expected "
                f"model.network.out_channels {2 * channels}, it is {out}"
            )


def check_classifier(network: Network, process: Process, spec: DataSpec, crop: int) -> None:
    """Compares a classifier with the data: the classes, the size of the images.

    Args:
        network: The classifier.
        process: Its forward process.
        spec: The data.
        crop: How far training images are moved, in pixels.

    Raises:
        ValueError: If they do not fit.
    """
    if not spec.num_classes:
        raise ValueError(
            f"data: {spec.name} has no labels; expected data with classes to tell apart"
        )
    network.check(spec, process.T)
    if network.num_classes != spec.num_classes:
        raise ValueError(
            f"model.network.num_classes: {network.num_classes}; expected the {spec.num_classes} "
            f"classes of {spec.name}"
        )
    check_crop(crop, spec)


def check_crop(crop: int, spec: DataSpec) -> None:
    """Refuses to move images out of sight.

    Raises:
        ValueError: If they are moved by more pixels than they have.
    """
    if crop and (len(spec.shape) != 3 or crop >= min(spec.shape[1:])):
        raise ValueError(
            f"model.crop: {crop}; expected less than the sides of the images, {spec.shape} here"
        )
