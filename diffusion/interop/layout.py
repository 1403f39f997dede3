"""Where each layer of our UNets stands, so that a family's names follow from its place.

Every family stores the same layers: residual blocks, attention, and what changes the resolution,
on the way down, in the middle and on the way up. A family says what it calls a place (`Place`) and
what it calls the parts of a layer; `names` puts both together for every parameter.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion.common.validate import first_few
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.blocks import Downsample, ResBlock, Upsample
from diffusion.networks.unet.encoder import Encoder, Stage

Kind = Literal["residual", "attention", "shrink", "grow"]
Names = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Place:
    """One layer of a UNet.

    Attributes:
        ours: Its name here, such as "down.3.block".
        kind: A residual block, attention, or a convolution that halves ("shrink") or doubles
            ("grow") the resolution; a residual block that resizes is "residual".
        way: Which way it is on.
        index: The number of its stage on this way.
        slot: Its number in the stage, or in the middle.
        level: Its level in the order in which the way visits them.
        block: The number of its stage in the level.
        resize: Whether it changes the resolution.
    """

    ours: str
    kind: Kind
    way: Literal["down", "middle", "up"]
    index: int
    slot: int
    level: int
    block: int
    resize: bool = False


def kind_of(module: nn.Module) -> Kind:
    """Returns what a layer is."""
    kinds: dict[type[nn.Module], Kind] = {
        ResBlock: "residual",
        SelfAttention: "attention",
        Downsample: "shrink",
        Upsample: "grow",
    }
    return kinds[type(module)]


def places(network: Encoder) -> Iterator[Place]:
    """Yields the layers of a network in its order."""
    ways = dict(network.named_children())
    for way in ("down", "middle", "up"):
        slot = level = block = 0
        for index, stage in enumerate(ways[way].children() if way in ways else ()):
            slot = slot if way == "middle" else 0
            whole = not isinstance(stage, Stage)  # what stands between two levels on the way down
            parts = {"": stage} if whole else dict(stage.named_children())
            for name, module in parts.items():
                ours = f"{way}.{index}.{name}".rstrip(".")
                resize = whole or name == "upsample"
                yield Place(ours, kind_of(module), way, index, slot, level, block, resize)
                slot += 1
            last = whole or "upsample" in parts
            level, block = (level + 1, 0) if last else (level, block + 1)


def names(
    network: Encoder,
    of_place: Callable[[Place], str],
    parts: Mapping[str, Mapping[str, str | tuple[str, ...]]],
    others: Mapping[str, str],
) -> Names:
    """Returns what a family calls each parameter of a network.

    Args:
        network: One of ours.
        of_place: What the family calls a layer.
        parts: What it calls the parts of a layer, by the kind of layer; three names are those that
            are joined in one weight here.
        others: What it calls the layers outside the stages.
    """
    layers: dict[str, str | tuple[str, ...]] = dict(others)
    for place in places(network):
        above = of_place(place)
        for ours, theirs in parts[place.kind].items():
            one = isinstance(theirs, str)
            layers[f"{place.ours}.{ours}"] = (
                f"{above}.{theirs}" if one else tuple(f"{above}.{x}" for x in theirs)
            )
    found: Names = {}
    for parameter in network.state_dict():
        layer, _, leaf = parameter.rpartition(".")
        theirs = layers.get(parameter) or layers[layer]
        if parameter in layers:
            found[parameter] = theirs
        elif isinstance(theirs, str):
            found[parameter] = f"{theirs}.{leaf}"
        else:
            found[parameter] = tuple(f"{x}.{leaf}" for x in theirs)
    return found


def flat(shape: torch.Size) -> tuple[int, ...]:
    """Returns a shape without ones at its end: a linear layer may be a convolution elsewhere."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def shapes(network: nn.Module, names: Names) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that a family's weights for a network have, by the family's names."""
    wanted: dict[str, tuple[int, ...]] = {}
    for ours, value in network.state_dict().items():
        theirs = names[ours]
        if isinstance(theirs, str):
            wanted[theirs] = flat(value.shape)
        else:
            wanted |= dict.fromkeys(theirs, flat(value.chunk(3)[0].shape))
    return wanted


def differences(wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> list[str]:
    """Returns in words which tensors are missing, unknown or of another shape, in order."""
    missing = [name for name in wanted if name not in weights]
    unknown = [name for name in weights if name not in wanted]
    other = [
        f"{name} {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in weights and flat(weights[name].shape) != shape
    ]
    found = {"not accounted for": unknown, "missing": missing, "of another shape": other}
    return [f"{what}: {first_few(names)}" for what, names in found.items() if names]


def ours(network: nn.Module, names: Names, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state dict of our network that holds a family's weights.

    Raises:
        ValueError: If a tensor is missing, unknown, or of another shape.
    """
    if wrong := differences(shapes(network, names), weights):
        kind = type(network).__name__
        raise ValueError(f"weights: {'; '.join(wrong)}; expected those of this {kind}")
    found = {}
    for name, value in network.state_dict().items():
        theirs = names[name]
        part = (
            weights[theirs] if isinstance(theirs, str) else torch.cat([weights[x] for x in theirs])
        )
        found[name] = part.reshape(value.shape)
    return found


def check_groups(network: nn.Module, groups: int) -> None:
    """Refuses a network whose norms do not all have so many groups, as they do elsewhere.

    Raises:
        ValueError: If one has fewer, as narrow layers have here.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm) and module.num_groups != groups:
            raise ValueError(
                f"groups: {name} has {module.num_groups} here for its {module.num_channels} "
                f"channels; expected {groups} in every norm, as elsewhere (model.network.groups)"
            )
