"""What a package calls the parameters of our UNets, from where each layer stands.

Every family stores the same layers: residual blocks, attention, and what changes the resolution,
on the way down, in the middle and on the way up. `TABLE` says what a family calls the parts of a
layer, and its own module what it calls a place (`Place`); `unet_names` puts both together.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion.common.validate import first_few
from diffusion.networks.unet.encoder import Encoder, Stage

# The class of a layer, what its parts are called here, by OpenAI and by diffusers; and the layers
# outside the stages. Weights with commas between them are joined in one here.
TABLE = """
ResBlock       norm_in             in_layers.0       norm1
ResBlock       conv_in             in_layers.2       conv1
ResBlock       emb                 emb_layers.1      time_emb_proj
ResBlock       norm_out            out_layers.0      norm2
ResBlock       conv_out            out_layers.3      conv2
ResBlock       shortcut            skip_connection   conv_shortcut
SelfAttention  norm                norm              group_norm
SelfAttention  qkv                 qkv               to_q,to_k,to_v
SelfAttention  out                 proj_out          to_out.0
Downsample     conv                op                conv
Upsample       conv                conv              conv
-              conv_in             input_blocks.0.0  conv_in
-              embedding.time_in   time_embed.0      time_embedding.linear_1
-              embedding.time_out  time_embed.2      time_embedding.linear_2
-              embedding.label     label_emb         class_embedding
-              norm_out            out.0             conv_norm_out
-              conv_out            out.2             conv_out
"""
Names = dict[str, tuple[str, ...]]  # of each parameter; several are joined in one weight here


@dataclass(frozen=True)
class Place:
    """One layer of a UNet.

    Attributes:
        ours: Its name here, such as "down.3.block".
        kind: The name of its class; a residual block may resize too.
        way: Which way it is on.
        index: The number of its stage on this way.
        slot: Its number in the stage, or in the middle.
        level: Its level in the order in which the way visits them.
        block: The number of its stage in the level.
        resize: Whether it changes the resolution.
    """

    ours: str
    kind: str
    way: Literal["down", "middle", "up"]
    index: int
    slot: int
    level: int
    block: int
    resize: bool


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
                ours, kind = f"{way}.{index}.{name}".rstrip("."), type(module).__name__
                resize = whole or name == "upsample"
                yield Place(ours, kind, way, index, slot, level, block, resize)
                slot += 1
            last = whole or "upsample" in parts
            level, block = (level + 1, 0) if last else (level, block + 1)


def unet_names(
    network: Encoder,
    family: Literal["openai", "diffusers"],
    above: Callable[[Place], str],
    others: Mapping[str, str] | None = None,
) -> Names:
    """Returns what a family calls each parameter of a UNet.

    Args:
        network: One of ours.
        family: Whose names.
        above: What the family calls a layer.
        others: What it calls layers that are not in the table.
    """
    rows = [line.split() for line in TABLE.strip().splitlines()]
    column = {"openai": 2, "diffusers": 3}[family]
    columns = [(row[0], row[1], row[column]) for row in rows]
    layers = {ours: theirs for kind, ours, theirs in columns if kind == "-"} | dict(others or {})
    for place in places(network):
        for kind, ours, theirs in columns:
            if kind == place.kind:
                whole = (f"{above(place)}.{part}" for part in theirs.split(","))
                layers[f"{place.ours}.{ours}"] = ",".join(whole)
    return parameter_names(network, layers)


def parameter_names(network: nn.Module, layers: Mapping[str, str]) -> Names:
    """Returns what a family calls each parameter of a network.

    Args:
        network: One of ours.
        layers: What the family calls a layer, or a parameter that is in none, by our name; several
            layers have commas between them.
    """
    found: Names = {}
    for parameter in network.state_dict():
        layer, _, leaf = parameter.rpartition(".")
        if parameter in layers:
            found[parameter] = (layers[parameter],)
        else:
            found[parameter] = tuple(f"{theirs}.{leaf}" for theirs in layers[layer].split(","))
    return found


def flat(shape: torch.Size) -> tuple[int, ...]:
    """Returns a shape without ones at its end: a linear layer may be a convolution elsewhere."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def shapes(network: nn.Module, names: Names) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that a family's weights for a network have, by the family's names."""
    return {
        theirs: flat(part.shape)
        for ours, value in network.state_dict().items()
        for theirs, part in zip(names[ours], value.chunk(len(names[ours])))
    }


def differences(wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> list[str]:
    """Returns in words which tensors are missing, unknown or of another shape, in order."""
    found = {
        "not accounted for": [name for name in weights if name not in wanted],
        "missing": [name for name in wanted if name not in weights],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {shape}"
            for name, shape in wanted.items()
            if name in weights and flat(weights[name].shape) != shape
        ],
    }
    return [f"{what}: {first_few(names)}" for what, names in found.items() if names]


def imported_weights(
    network: nn.Module, names: Names, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns the state dict of our network that holds a family's weights.

    Raises:
        ValueError: If a tensor is missing, unknown, or of another shape.
    """
    if wrong := differences(shapes(network, names), weights):
        kind = type(network).__name__
        raise ValueError(f"weights: {'; '.join(wrong)}; expected those of this {kind}")
    found = {}
    for name, value in network.state_dict().items():
        first, *more = (weights[theirs] for theirs in names[name])
        found[name] = (torch.cat([first, *more]) if more else first).reshape(value.shape)
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
