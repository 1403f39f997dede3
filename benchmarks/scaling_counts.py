"""What networks cost, counted without numbers: parameters, FLOPs, bytes (see cost.py)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from cost import Cost, Op, cost, flops
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from diffusion import networks, process
from diffusion.networks import UNet
from diffusion.networks.conditioning.token_encoder import TokenEncoder
from diffusion.networks.text.frozen_text import FrozenText

TEXT = {"class_path": "TextTransformer", "init_args": {"width": 2048, "depth": 24, "heads": 32}}
TEXT["init_args"] |= {"length": 128, "rows": 50257}
GLIDE: dict[str, Any] = {  # its section 4; rows: GPT-2's vocabulary, heads: ours
    "class_path": "UNet",
    "init_args": {
        "image_size": 64, "out_channels": 6, "channels": 512, "multipliers": [1, 2, 3, 4],
        "attention": [32, 16, 8], "blocks": 3, "head_width": 64, "scale_shift": True,
        "resample": "block", "family": "openai",
        "streams": {"text": {"class_path": "Stream", "init_args": {"encoder": TEXT}}},
    },
}  # fmt: skip
BATCHES = {"GLIDE": 2048}  # of those without a configuration
COUNTED = (8, 24)  # batches; everything is affine in them
WAYS = [(False, False), (False, True), (True, False), (True, True)]  # bf16, checkpointing


def made(node: Any) -> Any:
    """Returns the object that a part of a network's section describes."""
    if isinstance(node, Mapping) and "class_path" in node:
        name, given = node["class_path"], {k: made(v) for k, v in node["init_args"].items()}
        if hasattr(networks, name):
            return getattr(networks, name)(**given)
        with unset_fake_temporarily():
            return getattr(process, name)(**given)
    return {k: made(v) for k, v in node.items()} if isinstance(node, Mapping) else node


def model(name: str) -> tuple[UNet, int]:
    """Returns a network and the batch it is trained with."""
    if name in BATCHES:
        return made(GLIDE), BATCHES[name]
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    return made(config["model"]["network"]), config["data"]["init_args"]["batch_size"]


def batch(network: UNet, n: int) -> tuple[Sequence[Tensor], Mapping[str, Tensor]]:
    """Returns x_t and t, and all conditions."""
    side, found = network.image_size, dict[str, Tensor]()
    if network.num_classes:
        found["label"] = torch.randint(network.num_classes, (n,))
    for name, encoder in network.streams.encoders.items() if network.streams else ():
        assert isinstance(encoder, TokenEncoder)
        if isinstance(encoder, FrozenText):
            found[name] = torch.randn(n, encoder.length, encoder.width)
            found[name + "_mask"] = torch.ones(n, encoder.length, dtype=torch.bool)
            found[name + "_pooled"] = torch.randn(n, encoder.pooled_width)
        else:
            found[name] = torch.ones(n, encoder.get_parameter("position").shape[0]).long()
            found[name + "_last"] = torch.ones(n).long()
    if "low_res" in network.required:
        found["low_res"] = torch.randn(n, network.in_channels, side // 2, side // 2)
        found["level"] = torch.randint(1, 1000, (n,))
    return (torch.randn(n, network.in_channels, side, side), torch.randint(1, 1000, (n,))), found


def affine(at: Sequence[float], n: int) -> float:
    """Returns what a figure of the two batches `COUNTED` is at n."""
    (few, many), (low, high) = COUNTED, at
    return low + (high - low) * (n - few) / (many - few)


@dataclass(frozen=True)
class Counted:
    """A network's costs at the two batches.

    Attributes:
        parameters: Of the network, without what is frozen.
        visual: Without the encoders of its streams.
        costs: By bf16, checkpointing.
        size: H = W.
        inputs: Bytes of a picture and its conditions as they come to the device: pixels as bytes.
        batch: That it is trained with.
    """

    parameters: int
    visual: int
    costs: Mapping[tuple[bool, bool], Sequence[Cost]]
    size: int
    inputs: int
    batch: int

    def ops(self, n: int, bf16: bool, again: bool, backward: bool) -> list[Op]:
        """Returns the operators of a pass of n pictures."""
        low, high = ([c.forward, c.backward][backward] for c in self.costs[bf16, again])
        return [
            Op(round(affine((a.flops, b.flops), n)), round(affine((a.bytes, b.bytes), n)))
            for a, b in zip(low, high)
        ]

    def flops(self, again: bool, backward: bool) -> int:
        """Returns those of a picture."""
        low, high = ([c.forward, c.step][backward] for c in self.costs[True, again])
        return (flops(high) - flops(low)) // (COUNTED[1] - COUNTED[0])

    def traffic(self) -> float:
        """Returns bytes that a picture's step reads and writes in bf16, without recomputation."""
        low, high = (sum(op.bytes for op in cost.step) for cost in self.costs[True, False])
        return (high - low) / (COUNTED[1] - COUNTED[0])

    def per_picture(self, bf16: bool, again: bool, peak: bool = False) -> float:
        """Returns bytes of activations a picture: saved, or, for bf16, at most alive."""
        found = [c.peak if peak else c.saved for c in self.costs[bf16, again]]
        if bf16:  # without the weights in bfloat16, which autocast keeps for a step
            return (found[1] - found[0]) / (COUNTED[1] - COUNTED[0])
        return found[0] / COUNTED[1]

    def needs(self, n: int, bf16: bool, again: bool) -> float:
        """Returns bytes of a step of n: weights, two moments, average, and what lives at most."""
        low, high = self.costs[bf16, again]
        gradients = 4 * self.parameters
        return 16 * self.parameters + max(gradients, affine((low.peak, high.peak), n))


def count(name: str, ways: Sequence[tuple[bool, bool]] = WAYS) -> Counted:
    """Runs a model without numbers."""
    with FakeTensorMode():
        network, size = model(name)
        costs: dict[tuple[bool, bool], list[Cost]] = {}
        for bf16, network.checkpointing in ways:
            costs[bf16, network.checkpointing] = [
                cost(network, partial(batch, network, n), bf16)
                for n in (COUNTED if bf16 else COUNTED[1:])
            ]
            print(name, bf16, network.checkpointing, f"{time.process_time():.0f} s", flush=True)
        (x_t, _), conditions = batch(network, 1)
        text = network.streams.encoders.parameters() if network.streams else ()
        total = sum(p.numel() for p in network.parameters())
        images = [x_t, *(v for k, v in conditions.items() if k == "low_res")]
        others = [v for k, v in conditions.items() if k not in ("low_res", "level")]
        inputs = sum(x.numel() for x in images) + sum(x.nbytes for x in others)
        visual = total - sum(p.numel() for p in text)
        return Counted(total, visual, costs, network.image_size, inputs, size)
