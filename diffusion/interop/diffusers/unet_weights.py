"""diffusers' UNet2DModel: what its config.json and weights are here, and the other way round.

The same network, with Q, K and V as three layers instead of one, and its options in other words:
flip_sin_to_cos and freq_shift are the family's sinusoids, norm_eps its ε, downsample_padding its
padding (0 is TensorFlow's SAME).
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from diffusion.interop.diffusers.options import check_fixed, translated
from diffusion.interop.layout import Names, Place, check_groups, unet_names
from diffusion.interop.presets import Settings
from diffusion.networks import UNet
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.encoder import Encoder

FILE = "config.json"
# What layers of attention were called before diffusers 0.14, as in google/ddpm-cifar10-32.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
FAMILIES = {
    "ddpm": {"flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "downsample_padding": 0},
    "openai": {"flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5, "downsample_padding": 1},
}
# What has no counterpart here, with the one value that is ours; most are diffusers' defaults.
FIXED: Settings = {"center_input_sample": False, "add_attention": True, "act_fn": "silu"}
FIXED |= {"time_embedding_type": "positional", "time_embedding_dim": None}
FIXED |= {"mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1}
FIXED |= {"class_embed_type": None}
DEFAULTS: Settings = {**FIXED, **FAMILIES["openai"], "sample_size": None, "num_class_embeds": None}
DEFAULTS |= {"in_channels": 3, "out_channels": 3, "layers_per_block": 2, "dropout": 0.0}
DEFAULTS |= {"attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None}
DEFAULTS |= {"downsample_type": "conv", "upsample_type": "conv"}
DEFAULTS |= {"resnet_time_scale_shift": "default"}
# How a block changes the resolution; those with attention do as downsample_type, upsample_type say.
BLOCKS: dict[str, str | None] = {"AttnDownBlock2D": None, "AttnUpBlock2D": None}
BLOCKS |= {"DownBlock2D": "conv", "UpBlock2D": "conv"}
BLOCKS |= {"ResnetDownsampleBlock2D": "block", "ResnetUpsampleBlock2D": "block"}
TYPES = {"conv": "conv", "resnet": "block"}


def names(network: Encoder) -> Names:
    """Returns what diffusers calls each parameter of a network of ours, three for a qkv."""
    return unet_names(network, "diffusers", _diffusers_layer)


def _diffusers_layer(at: Place) -> str:
    """Returns what diffusers calls a layer."""
    if at.resize:
        what = {"down": "downsamplers", "up": "upsamplers"}[at.way]
        return f"{at.way}_blocks.{at.level}.{what}.0"
    what = "attentions" if at.kind == "SelfAttention" else "resnets"
    if at.way == "middle":
        return f"mid_block.{what}.{at.index}"
    return f"{at.way}_blocks.{at.level}.{what}.{at.block}"


def modern(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with today's names for the layers of attention."""

    def today(old: re.Match[str]) -> str:
        return f".attentions.{old[1]}.{OLD[old[2]]}."

    pattern = rf"\.attentions\.(\d+)\.({'|'.join(OLD)})\."
    return {re.sub(pattern, today, name): value for name, value in weights.items()}


def exported_weights(network: UNet) -> dict[str, Tensor]:
    """Returns diffusers' weights for a network of ours."""
    found, theirs = {}, names(network)
    for name, value in network.state_dict().items():
        layer = network.get_submodule(name.rpartition(".qkv.")[0])
        if isinstance(layer, SelfAttention) and layer.qkv_order == "heads-qkv":
            value = value.unflatten(0, (layer.heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        parts = value.chunk(len(theirs[name]))
        found |= {new: part.clone().contiguous() for new, part in zip(theirs[name], parts)}
    return found


def network_settings(config: Settings) -> Settings:
    """Returns the arguments of `UNet` for a UNet2DModel's config.json.

    Raises:
        ValueError: If an option has no counterpart.
    """
    check_fixed(FILE, config, {"_class_name": "UNet2DModel"})
    said: Settings = {**DEFAULTS, **config}
    widths, size, groups = (
        said[k] for k in ("block_out_channels", "sample_size", "norm_num_groups")
    )
    same = {"time_embedding_dim": 4 * widths[0], "attn_norm_num_groups": groups}
    said |= {key: value for key, value in same.items() if said[key] is None}
    check_fixed(FILE, said, FIXED | same)
    if not isinstance(size, int):
        raise ValueError(f"{FILE}: sample_size is {size}; expected one number")
    family = next((k for k, v in FAMILIES.items() if all(said[x] == v[x] for x in v)), None)
    if family is None:
        found = ", ".join(f"{key} {said[key]}" for key in FAMILIES["ddpm"])
        wanted = " or ".join(", ".join(f"{k} {v}" for k, v in f.items()) for f in FAMILIES.values())
        raise ValueError(f"{FILE}: {found}; expected {wanted}")
    resample, up = _resample(said), said["up_block_types"]
    attend = [BLOCKS[name] is None for name in said["down_block_types"]]
    if attend[::-1] != [BLOCKS[name] is None for name in up]:
        raise ValueError(f"{FILE}: up_block_types is {up}; expected attention as on the way down, "
                         "in reverse")  # fmt: skip
    width, classes = said["attention_head_dim"], said["num_class_embeds"]
    return {
        "image_size": size,
        "in_channels": said["in_channels"],
        "out_channels": said["out_channels"],
        "channels": widths[0],
        "multipliers": [w // widths[0] if w % widths[0] == 0 else w / widths[0] for w in widths],
        "attention": [size // 2**i for i, yes in enumerate(attend) if yes],
        "blocks": said["layers_per_block"],
        "dropout": said["dropout"],
        **({"heads": 1} if width is None else {"head_width": width}),
        **({} if classes is None else {"num_classes": classes, "null_class": False}),
        "scale_shift": said["resnet_time_scale_shift"] == "scale_shift",
        "resample": resample,
        "family": family,
        "groups": groups,
    }


def _resample(said: Settings) -> str:
    """Returns how the resolution changes: the same way everywhere, as it is here.

    The last block of each way changes nothing, so it may be of either kind.
    """
    ways = set()
    for way in ("down", "up"):
        of_type, key = said[f"{way}sample_type"], f"{way}_block_types"
        kinds = [translated(FILE, key, name, BLOCKS) for name in said[key]]
        ways |= {kind or TYPES.get(of_type, of_type) for kind in kinds[:-1]}
    if not ways <= {"conv", "block"} or len(ways) > 1:
        raise ValueError(
            f"{FILE}: the resolution changes by {' and by '.join(sorted(map(str, ways)))}; "
            "expected convolutions or residual blocks throughout"
        )
    return ways.pop() if ways else "conv"


def unet_config(network: nn.Module, shape: Sequence[int] | None = None) -> Settings:
    """Returns the config.json of a UNet2DModel that computes what a network of ours does.

    Args:
        network: Ours.
        shape: Of the images that it draws, (C, H, W); None for squares of its image_size.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(network, UNet) or type(network) is not UNet:
        raise ValueError(f"network: {type(network).__name__}; expected UNet, the only one that "
                         "diffusers' UNet2DModel computes")  # fmt: skip
    embedding, widths, label = network.embedding, network.widths[1:], network.embedding.label
    first = widths[0] / embedding.dim
    for wrong, reason in (
        (network.streams, "streams: it reads texts; expected none, as UNet2DModel reads none"),
        (network.patch != 1, f"patch: {network.patch}; expected 1, UNet2DModel folds no pixels"),
        (
            len({*network.blocks}) > 1,
            f"blocks: {network.blocks}; expected one number, UNet2DModel has as many in each level",
        ),
        (
            network.resample_first or network.skip_scale != 1 or not network.style.self_attention,
            "resample_first, skip_scale, self_attention: of Imagen's UNet; expected their defaults,"
            " as UNet2DModel has them",
        ),
        (
            embedding.time_scale != 1,
            f"time_scale: {embedding.time_scale:g}; expected 1, UNet2DModel embeds t − 1 as it is",
        ),
        (
            first != 1,
            f"multipliers: the first is {first:g}; expected 1, UNet2DModel has one width for the "
            "time and the first level",
        ),
    ):
        if wrong:
            raise ValueError(f"network.{reason}")
    groups, block = network.norm_out.num_groups, network.style.resample == "block"
    check_groups(network, groups)
    height, width = (network.image_size,) * 2 if shape is None else tuple(shape[1:])
    ways = ("Resnet{}sampleBlock2D" if block else "{}Block2D", "Attn{}Block2D")
    down, up = ([ways[x].format(w) for x in network.attend] for w in ("Down", "Up"))
    return {
        **FIXED,
        **FAMILIES[embedding.family],
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": network.in_channels,
        "out_channels": network.out_channels,
        "block_out_channels": widths,
        "layers_per_block": network.blocks[0],
        "down_block_types": down,
        "up_block_types": up[::-1],
        "downsample_type": "resnet" if block else "conv",
        "upsample_type": "resnet" if block else "conv",
        "dropout": network.style.dropout,
        "attention_head_dim": _head_width(network),
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups,
        "resnet_time_scale_shift": "scale_shift" if network.style.scale_shift else "default",
        "num_class_embeds": None if label is None else len(label.weight),
    }


def _head_width(network: UNet) -> int | None:
    """Returns the channels of every head, None for one head everywhere."""
    layers = [m for m in network.modules() if isinstance(m, SelfAttention)]
    if all(layer.heads == 1 for layer in layers):
        return None
    widths = {layer.out.in_features // layer.heads for layer in layers}
    if len(widths) > 1:
        raise ValueError(
            f"network.heads: heads of {', '.join(map(str, sorted(widths)))} channels; expected one "
            "width in all attention, UNet2DModel has one attention_head_dim"
        )
    return widths.pop()
