"""OpenAI's improved-diffusion and guided-diffusion: UNets, upsamplers, classifiers.

The networks are ours with family="openai"; only names differ, and convolutions over one position
are linear layers here. What their files do not say (heads, the order of Q, K and V, the process)
comes with the preset of a published checkpoint, which the shapes of all tensors identify.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion.interop import layout
from diffusion.interop.layout import Names, Place
from diffusion.interop.presets import PRESETS, Model
from diffusion.networks import ClassifierNetwork
from diffusion.networks.unet.encoder import Encoder

GROUPS = 32
POOL = {
    "attention": {
        "pool.position": "out.2.positional_embedding",
        "pool.qkv": "out.2.qkv_proj",
        "pool.out": "out.2.c_proj",
    },
    "mean": {"pool.out": "out.3"},
}


def names(network: Encoder) -> Names:
    """Returns what OpenAI's code calls each parameter of a network of ours.

    Raises:
        ValueError: If a norm of ours has not 32 groups, as all of theirs have.
    """
    layout.check_groups(network, GROUPS)
    pool = {}
    if isinstance(network, ClassifierNetwork):
        pool = POOL["attention" if network.fixed else "mean"]
    return layout.unet_names(network, "openai", _openai_layer, pool)


def _openai_layer(at: Place) -> str:
    """Returns what OpenAI's code calls a layer; its list of the way down begins with conv_in."""
    if at.way == "middle":
        return f"middle_block.{at.slot}"
    if at.way == "down":
        return f"input_blocks.{at.index + 1}.{at.slot}"
    return f"output_blocks.{at.index}.{at.slot}"


def preset_of(weights: Mapping[str, Tensor], path: Path, preset: str | None = None) -> Model:
    """Returns the published model whose tensors have these shapes.

    Args:
        weights: A file's tensors.
        path: The file, for errors.
        preset: The one it is, where several have these shapes.

    Raises:
        ValueError: If none has these shapes or more than one, or another one than was named.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset: {preset}; expected one of {', '.join(PRESETS)}")
    have = {name: layout.flat(value.shape) for name, value in weights.items()}
    wanted = {}
    for name in PRESETS if preset is None else [preset]:
        network = PRESETS[name].network("meta")
        wanted[name] = layout.shapes(network, names(network))
    found = [name for name, shapes in wanted.items() if shapes == have]
    if len(found) > 1:
        raise ValueError(
            f"weights: {path} has the shapes of {' and of '.join(found)}, which differ in what "
            f"shapes do not tell; expected --preset {found[0]} or another of them"
        )
    if not found:
        near = min(wanted, key=lambda name: len(wanted[name].items() ^ have.items()))
        wrong = layout.differences(wanted[near], weights)
        raise ValueError(
            f"weights: {path}; expected the tensors of a published checkpoint, or a --config that "
            f"describes the network; of the nearest, {near}, are {'; '.join(wrong)}"
        )
    return PRESETS[found[0]]
