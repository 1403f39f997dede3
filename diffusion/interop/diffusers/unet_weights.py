"""diffusers' UNet2DModel: what its config.json and weights are here, and the other way round.

The same network, with Q, K and V as three layers instead of one, and its options in other words:
flip_sin_to_cos and freq_shift are the family's sinusoids, norm_eps its ε, downsample_padding its
padding (0 is TensorFlow's SAME).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from diffusion.interop import layout
from diffusion.interop.layout import Names, Place
from diffusion.interop.presets import Settings
from diffusion.networks import UNet
from diffusion.networks.unet.attention import SelfAttention
from diffusion.networks.unet.encoder import Encoder

PARTS: dict[str, dict[str, str | tuple[str, ...]]] = {
    "residual": {
        "norm_in": "norm1",
        "conv_in": "conv1",
        "emb": "time_emb_proj",
        "norm_out": "norm2",
        "conv_out": "conv2",
        "shortcut": "conv_shortcut",
    },
    "attention": {"norm": "group_norm", "qkv": ("to_q", "to_k", "to_v"), "out": "to_out.0"},
    "shrink": {"conv": "conv"},
    "grow": {"conv": "conv"},
}
OTHERS = {
    "conv_in": "conv_in",
    "embedding.time_in": "time_embedding.linear_1",
    "embedding.time_out": "time_embedding.linear_2",
    "embedding.label": "class_embedding",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
# What layers of attention were called before diffusers 0.14, as in google/ddpm-cifar10-32.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
FAMILIES = {
    "ddpm": {"flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "downsample_padding": 0},
    "openai": {"flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5, "downsample_padding": 1},
}
# What has no counterpart here, with the one value that is ours; most are diffusers' defaults.
FIXED = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "add_attention": True,
    "class_embed_type": None,
}
DEFAULTS = {
    **FIXED,
    **FAMILIES["openai"],
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "num_class_embeds": None,
}
CONV, BLOCK = {"DownBlock2D", "UpBlock2D"}, {"ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"}
ATTENTION = {"AttnDownBlock2D", "AttnUpBlock2D"}


def place(at: Place) -> str:
    """Returns what diffusers calls a layer."""
    if at.resize:
        what = {"down": "downsamplers", "up": "upsamplers"}[at.way]
        return f"{at.way}_blocks.{at.level}.{what}.0"
    what = "attentions" if at.kind == "attention" else "resnets"
    if at.way == "middle":
        return f"mid_block.{what}.{at.index}"
    return f"{at.way}_blocks.{at.level}.{what}.{at.block}"


def names(network: Encoder) -> Names:
    """Returns what diffusers calls each parameter of a network of ours, three for a qkv."""
    return layout.names(network, place, PARTS, OTHERS)


def modern(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with today's names for the layers of attention."""
    found = {}
    for name, value in weights.items():
        above, _, last = name.rpartition(".")
        stem, _, layer = above.rpartition(".")
        known = layer in OLD and ".attentions." in name
        found[f"{stem}.{OLD[layer]}.{last}" if known else name] = value
    return found


def network_settings(config: Mapping[str, Any]) -> Settings:
    """Returns the arguments of `UNet` for a UNet2DModel's config.json.

    Raises:
        ValueError: If an option has no counterpart.
    """
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ValueError(f"config.json: _class_name is {kind}; expected UNet2DModel")
    said: dict[str, Any] = {**DEFAULTS, **config}
    for key, value in FIXED.items():
        if said[key] != value and not (key == "time_embedding_dim" and _usual(said)):
            raise ValueError(f"config.json: {key} is {said[key]}; expected {value}")
    family = next((k for k, v in FAMILIES.items() if all(said[x] == v[x] for x in v)), None)
    if family is None:
        found = ", ".join(f"{key} {said[key]}" for key in FAMILIES["ddpm"])
        wanted = " or ".join(", ".join(f"{k} {v}" for k, v in f.items()) for f in FAMILIES.values())
        raise ValueError(f"config.json: {found}; expected {wanted}")
    down, up, widths = said["down_block_types"], said["up_block_types"], said["block_out_channels"]
    size = said.get("sample_size")
    if not isinstance(size, int):
        raise ValueError(f"config.json: sample_size is {size}; expected one number")
    attend = [name in ATTENTION for name in down]
    resample, groups = _resample(said), said["norm_num_groups"]
    if said["attn_norm_num_groups"] not in (None, groups):
        raise ValueError(
            f"config.json: attn_norm_num_groups is {said['attn_norm_num_groups']}; expected "
            f"norm_num_groups, {groups}"
        )
    if attend[::-1] != [name in ATTENTION for name in up]:
        raise ValueError(f"config.json: up_block_types is {up}; expected attention as on the way "
                         "down, in reverse")  # fmt: skip
    width, classes = said["attention_head_dim"], said["num_class_embeds"]
    multipliers = [w // widths[0] if w % widths[0] == 0 else w / widths[0] for w in widths]
    return {
        "image_size": size,
        "in_channels": said["in_channels"],
        "out_channels": said["out_channels"],
        "channels": widths[0],
        "multipliers": multipliers,
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


def _usual(said: Mapping[str, Any]) -> bool:
    return said["time_embedding_dim"] == 4 * said["block_out_channels"][0]


def _resample(said: Mapping[str, Any]) -> str:
    """Returns how the resolution changes: the same way everywhere, as it is here.

    The last block of each way changes nothing, so it may be of either kind.
    """
    down, up = said["down_block_types"], said["up_block_types"]
    known = CONV | BLOCK | ATTENTION
    if unknown := [name for name in [*down, *up] if name not in known]:
        raise ValueError(f"config.json: {unknown[0]}; expected blocks among {sorted(known)}")
    ways = set()
    for key, types in (("downsample_type", down[:-1]), ("upsample_type", up[:-1])):
        of_type = {"conv": "conv", "resnet": "block"}.get(said[key], said[key])
        for name in types:
            ways.add("conv" if name in CONV else "block" if name in BLOCK else of_type)
    if not ways <= {"conv", "block"} or len(ways) > 1:
        raise ValueError(
            f"config.json: the resolution changes by {' and by '.join(sorted(map(str, ways)))}; "
            "expected convolutions or residual blocks throughout"
        )
    return ways.pop() if ways else "conv"


def config(network: UNet, shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Returns the config.json of a UNet2DModel that computes what a network of ours does.

    Args:
        network: Ours.
        shape: Of the images that it draws, (C, H, W); None for squares of its image_size.

    Raises:
        ValueError: If there is none.
    """
    if type(network) is not UNet:
        raise ValueError(f"network: {type(network).__name__}; expected UNet, the only one that "
                         "diffusers' UNet2DModel computes")  # fmt: skip
    embedding, widths = network.embedding, network.widths[1:]
    if network.streams is not None:
        raise ValueError(
            "network.streams: it reads texts; expected none, as UNet2DModel reads none"
        )
    if network.patch != 1:
        raise ValueError(f"network.patch: {network.patch}; expected 1, UNet2DModel folds no pixels")
    if embedding.time_scale != 1:
        raise ValueError(f"network.time_scale: {embedding.time_scale:g}; expected 1, UNet2DModel "
                         "embeds t − 1 as it is")  # fmt: skip
    if embedding.dim != widths[0]:
        raise ValueError(
            f"network.multipliers: the first is {widths[0] / embedding.dim:g}; expected 1, "
            "UNet2DModel has one width for the time and the first level"
        )
    height, width = (network.image_size,) * 2 if shape is None else tuple(shape[1:])
    norm, attend = network.norm_out.num_groups, network.attend
    layout.check_groups(network, norm)
    block = network.style.resample == "block"
    ways = ("Resnet{}sampleBlock2D" if block else "{}Block2D", "Attn{}Block2D")
    types = {w: [ways[x].format(w.title()) for x in attend] for w in ("down", "up")}
    label = embedding.label
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": network.in_channels,
        "out_channels": network.out_channels,
        "block_out_channels": widths,
        "layers_per_block": network.blocks,
        "down_block_types": types["down"],
        "up_block_types": types["up"][::-1],
        "downsample_type": "resnet" if block else "conv",
        "upsample_type": "resnet" if block else "conv",
        "dropout": network.style.dropout,
        "attention_head_dim": head_width(network),
        "norm_num_groups": norm,
        "attn_norm_num_groups": norm,
        "resnet_time_scale_shift": "scale_shift" if network.style.scale_shift else "default",
        "num_class_embeds": None if label is None else len(label.weight),
        **FAMILIES[embedding.family],
        **FIXED,
    }


def head_width(network: UNet) -> int | None:
    """Returns the channels of every head, None for one head everywhere.

    Raises:
        ValueError: If neither is the case.
    """
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


def theirs(network: UNet) -> dict[str, Tensor]:
    """Returns diffusers' weights for a network of ours."""
    named, found = names(network), {}
    layers = dict(network.named_modules())
    for name, value in network.state_dict().items():
        to = named[name]
        if isinstance(to, str):
            found[to] = value.clone().contiguous()
            continue
        layer: Any = layers[name.rsplit(".", 2)[0]]
        if layer.qkv_order == "heads-qkv":
            rows = value.unflatten(0, (layer.heads, 3, -1)).transpose(0, 1).flatten(1, 2)
            parts: tuple[Tensor, ...] = rows.unbind(0)
        else:
            parts = value.chunk(3)
        found |= {x: part.clone().contiguous() for x, part in zip(to, parts)}
    return found
