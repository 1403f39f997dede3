"""The package denoising-diffusion-pytorch: what its trainer saves, and its `GaussianDiffusion`.

A trainer's file has the average under "ema", named ema_model.model.…, and the raw weights under
"model", named model.…; both also hold the process's tables, of which β_t and the weight of the
loss say what the process and the parameterisation are. The network is `LinearUNet`, whose sizes
all follow from shapes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.interop.betas import named
from diffusion.interop.layout import Names
from diffusion.interop.presets import Model, Settings, of
from diffusion.networks.linear_unet import LinearUNet

PARTS = {
    "emb": "mlp.1",
    "first.conv": "block1.proj",
    "first.norm": "block1.norm",
    "second.conv": "block2.proj",
    "second.norm": "block2.norm",
    "shortcut": "res_conv",
}
OTHERS = {
    "conv_in": "init_conv",
    "time_in": "time_mlp.1",
    "time_out": "time_mlp.3",
    "conv_out": "final_conv",
}
TABLES = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "loss_weight",
)  # fmt: skip
EXPECTED = "expected a file of denoising-diffusion-pytorch's Trainer or GaussianDiffusion"


def parts(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the network's weights, averaged if there are averages, and the process's tables.

    Raises:
        ValueError: If the file is something else.
    """
    prefix, found = "", content
    if isinstance(content, Mapping) and isinstance(content.get("ema"), Mapping):
        prefix, found = "ema_model.", content["ema"]
    elif isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        found = content["model"]
    if not isinstance(found, Mapping):
        raise ValueError(f"weights: {path}; {EXPECTED}")
    own = {str(k).removeprefix(prefix): v for k, v in found.items() if str(k).startswith(prefix)}
    tables = {name: own.pop(name) for name in TABLES if name in own}
    strange = [name for name in own if not name.startswith("model.")]
    if strange or "betas" not in tables or "model.init_conv.weight" not in own:
        reason = f"{strange[0]} is none of its names" if strange else "it lacks betas or init_conv"
        raise ValueError(f"weights: {path}; {EXPECTED}; {reason}")
    return {k.removeprefix("model."): v.float() for k, v in own.items()}, tables


def describe(weights: Mapping[str, Tensor], tables: Mapping[str, Tensor]) -> Model:
    """Returns the model that the shapes and the tables tell of.

    Raises:
        ValueError: If it is none of ours.
    """
    return Model(
        {
            "network": of("LinearUNet", **sizes(weights)),
            "process": named(tables["betas"].double()),
            "parameterization": parameterization(tables),
            "objective": "Simple",
            "sampler": {"step": of("DDPM", variance="small"), "guidance": ["Static"]},
            "optimizer": of("torch.optim.Adam", lr=1e-4),
        }
    )


def sizes(weights: Mapping[str, Tensor]) -> Settings:
    """Returns the arguments of `LinearUNet`.

    Raises:
        ValueError: If the network is conditioned on its own estimates, embeds the time by learned
            or random frequencies, or is of a version with other layers.
    """

    def shape(name: str) -> torch.Size:
        if name not in weights:
            raise ValueError(
                f"weights: {name} is missing; expected the network of denoising-diffusion-pytorch "
                "2.0 or later, with RMS norms and learned keys and values"
            )
        return weights[name].shape

    if "time_mlp.0.weights" in weights:
        raise ValueError(
            "weights: time_mlp.0.weights are learned or random frequencies; expected "
            "sinusoids, as its GaussianDiffusion has them"
        )
    out, _, *_ = shape("final_conv.weight")
    first, inputs, *_ = shape("init_conv.weight")
    if inputs == 2 * out:
        raise ValueError(
            f"weights: init_conv reads {inputs} channels and final_conv writes {out}, a network "
            "that is shown its last estimate (self_condition); expected one without"
        )
    channels = shape("time_mlp.1.weight")[1]
    levels = len({name.split(".")[1] for name in weights if name.startswith("downs.")})
    full = [f"downs.{i}.2.to_out.weight" in weights for i in range(levels)]
    memory = [shape(f"downs.{i}.2.mem_kv") for i in range(levels)]
    return {
        "in_channels": inputs,
        "out_channels": out,
        "channels": channels,
        "first": first,
        "multipliers": [
            shape(f"downs.{i}.3{'' if i == levels - 1 else '.1'}.weight")[0] // channels
            for i in range(levels)
        ],
        "heads": [m[1] for m in memory],
        "head_widths": [m[3] if whole else m[2] for m, whole in zip(memory, full)],
        "full": full,
        "learned": memory[-1][2] if full[-1] else memory[-1][3],
    }


def parameterization(tables: Mapping[str, Tensor]) -> str:
    """Returns what the network puts out, which the weight of its loss tells.

    The weight is 1 for ε, α²/σ² for x_0 and α² for v, each times min(γ σ²/α², 1) with min-SNR. The
    last time has less signal than any γ and tells ε from the others; these differ where α = σ.
    """
    weight, bar = tables["loss_weight"].double(), tables["alphas_cumprod"].double()
    if torch.isclose(weight[-1], torch.ones((), dtype=torch.float64), rtol=1e-3):
        return "Eps"
    even = int((bar - 0.5).abs().argmin())
    snr = bar[even] / (1 - bar[even])
    return "X0" if (weight[even] - snr).abs() < (weight[even] - bar[even]).abs() else "V"


def names(network: LinearUNet) -> Names:
    """Returns what the package calls each parameter of a network of ours."""
    found: Names = {}
    for name in network.state_dict():
        layer, _, leaf = name.rpartition(".")
        if layer in OTHERS:
            found[name] = f"{OTHERS[layer]}.{leaf}"
            continue
        way, *rest = name.split(".")
        found[name] = f"{_above(network, way, rest)}"
    return found


def _above(network: LinearUNet, way: str, rest: list[str]) -> str:
    """Returns the name of a parameter inside a level or the last block."""
    if way == "block_out":
        return f"final_res_block.{_block(rest)}"
    if way == "middle":
        part, *inner = rest
        if part == "attention":
            return f"mid_attn.{_attention(inner, full=True)}"
        return f"mid_block{1 if part == 'first' else 2}.{_block(inner)}"
    index, part, *inner = rest
    above = f"{way}s.{index}"
    if part == "attention":
        level = network.get_submodule(f"{way}.{index}.attention")
        return f"{above}.2.{_attention(inner, full=bool(level.full))}"
    if part == "onward":
        last = int(index) == len(network.down) - 1
        return f"{above}.3.{inner[0]}" if last else f"{above}.3.1.{inner[0]}"
    return f"{above}.{0 if part == 'first' else 1}.{_block(inner)}"


def _block(inner: list[str]) -> str:
    *layer, leaf = inner
    return f"{PARTS['.'.join(layer)]}.{leaf}"


def _attention(inner: list[str], full: bool) -> str:
    named = {
        "learned": "mem_kv",
        "norm.g": "norm.g",
        "qkv.weight": "to_qkv.weight",
        "out.weight": "to_out.weight" if full else "to_out.0.weight",
        "out.bias": "to_out.bias" if full else "to_out.0.bias",
        "norm_out.g": "to_out.1.g",
    }
    return named[".".join(inner)]
