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

from diffusion.interop.betas import named_process
from diffusion.interop.layout import Names, parameter_names
from diffusion.interop.presets import Model, Settings, node
from diffusion.networks.unet.linear_unet import Attention, LinearUNet, ResidualBlock

# Ours, and the package's: layers outside the levels, of the middle, and the parts of a block.
OTHERS = {"conv_in": "init_conv", "time_in": "time_mlp.1", "time_out": "time_mlp.3"}
OTHERS |= {"conv_out": "final_conv"}
LEVEL = ("first", "second", "attention", "onward")  # 0 … 3 there
MIDDLE = {"middle.first": "mid_block1", "middle.attention": "mid_attn"}
MIDDLE |= {"middle.second": "mid_block2", "block_out": "final_res_block"}
BLOCK = {"emb": "mlp.1", "first.conv": "block1.proj", "first.norm": "block1.norm"}
BLOCK |= {"second.conv": "block2.proj", "second.norm": "block2.norm", "shortcut": "res_conv"}
FULL = {"learned": "mem_kv", "norm": "norm", "qkv": "to_qkv", "out": "to_out"}
LINEAR = {**FULL, "out": "to_out.0", "norm_out": "to_out.1"}
TABLES = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "loss_weight",
)  # fmt: skip
EXPECTED = "expected a file of denoising-diffusion-pytorch's Trainer or GaussianDiffusion"


def recognised(content: Any, path: Path) -> tuple[Model, dict[str, Tensor]]:
    """Returns the model that shapes and tables tell of, and its weights, averaged if they are.

    Raises:
        ValueError: If the file is something else, or the model is none of ours.
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
    weights = {name.removeprefix("model."): value.float() for name, value in own.items()}
    settings = {
        "network": node("LinearUNet", **sizes(weights)),
        "process": named_process(tables["betas"].double()),
        "parameterization": parameterization(tables),
        "objective": "Simple",
        "sampler": {"step": node("DDPM", variance="small"), "guidance": ["Static"]},
        "optimizer": node("torch.optim.Adam", lr=1e-4),
    }
    return Model(settings), weights


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
    layers, last = {**OTHERS}, len(network.down) - 1
    above = {
        f"{way}.{i}.{part}": f"{way}s.{i}.{number}"
        for way in ("down", "up")
        for i in range(last + 1)
        for number, part in enumerate(LEVEL)
    }
    for ours, theirs in {**above, **MIDDLE}.items():
        layer = network.get_submodule(ours)
        if isinstance(layer, Attention):
            parts = FULL if layer.full else LINEAR
        elif isinstance(layer, ResidualBlock):
            parts = BLOCK
        else:  # behind what resizes, where the level is not the way's last
            layers[ours] = theirs if ours.split(".")[1] == str(last) else f"{theirs}.1"
            continue
        layers |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in parts.items()}
    return parameter_names(network, layers)
