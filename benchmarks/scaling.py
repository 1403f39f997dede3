"""What training costs at any size, and what 8 and 64 GPUs would make of it: docs/scaling.md.

`python benchmarks/scaling.py [--part models | cpu] [--only NAME …]` counts the models (nothing is
computed: see cost.py), predicts rates of H100s, and compares predictions with what a core of this
machine does. It writes docs/results/scaling*.csv, and the tables of docs/scaling.md from them.
"""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from bench import Row, in_doc, markdown, write
from cost import Cost, Op, cost, flops
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from diffusion import networks, process
from diffusion.networks import UNet
from diffusion.networks.conditioning.token_encoder import TokenEncoder
from diffusion.networks.text.frozen_text import FrozenText

DOC, RESULTS = Path("docs/scaling.md"), Path("docs/results")
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
CONFIGS = ("ddpm_cifar10", "glide_emoji", "glide_emoji_upsampler", "adm_imagenet64")
MODELS = (*CONFIGS, "GLIDE", "adm_imagenet256")
COUNTED = (8, 24)  # batches; everything is affine in them
WAYS = [(False, False), (False, True), (True, False), (True, True)]  # bf16, checkpointing


@dataclass(frozen=True)
class Chip:
    """A processor, and what is assumed of it.

    An operator takes the longest of FLOPs / (share · flops), bytes / (reach · bandwidth), and
    launch; a pass takes the sum of them, or host for each operator if that is more.
    """

    flops: float
    bandwidth: float
    memory: float = 80e9
    share: float = 0.6  # assumed
    reach: float = 0.8  # assumed
    launch: float = 5e-6  # assumed
    host: float = 1e-5  # assumed

    def seconds(self, ops: Sequence[Op], host: bool = True) -> float:
        """Returns how long operators take."""
        rates = self.share * self.flops, self.reach * self.bandwidth
        device = sum(max(op.flops / rates[0], op.bytes / rates[1], self.launch) for op in ops)
        return max(device, host * self.host * len(ops))


H100 = Chip(flops=989.4e12, bandwidth=3.35e12)  # SXM, bf16 without sparsity, HBM3
NVLINK, NETWORK, ETHERNET = 450e9, 8 * 50e9, 12.5e9  # bytes/s one way: of a card, of a node, a node
CARDS = [(1, NETWORK, ""), (8, NETWORK, "")]  # how many, bytes/s and name of the network
CARDS += [(64, NETWORK, "8 x 400 Gb/s"), (64, ETHERNET, "100 Gb/s")]
LATENCY, BUCKET, FITS = 5e-6, 25e6, 0.9  # of a hop, assumed; of DDP; of the memory, assumed


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


def reduce_seconds(size: float, cards: int, node: float = NETWORK) -> float:
    """Returns how long a ring takes to add up `size` bytes of each card."""
    rate = H100.reach * (min(NVLINK, node) if cards > 8 else NVLINK)
    return 0.0 if cards == 1 else 2 * (cards - 1) * (size / cards / rate + LATENCY)


@dataclass(frozen=True)
class Rate:
    """A prediction: seconds of a step, and how it is divided."""

    seconds: float
    part: int
    again: bool


def rate(counted: Counted, each: int, cards: int = 1, node: float = NETWORK) -> Rate | None:
    """Returns the fastest way that fits into the memory, None if none does.

    Args:
        counted: The model.
        each: Pictures of a step on each card.
        cards: How many.
        node: Bytes a second that leave a node of 8.
    """
    ways = list[Rate]()
    update = 40 * counted.parameters / (H100.reach * H100.bandwidth)  # Adam 28 bytes, average 12
    bucket = reduce_seconds(min(BUCKET, 4 * counted.parameters), cards, node)
    whole = reduce_seconds(4 * counted.parameters, cards, node)
    for again in (False, True):
        parts = [n for n in (2**i for i in range(12)) if n <= each and each % n == 0]
        fits = [n for n in parts if counted.needs(n, True, again) <= FITS * H100.memory]
        if fits:
            part = fits[-1]
            ahead, back = (
                H100.seconds(counted.ops(part, True, again, late)) for late in (False, True)
            )
            alone = (each // part - 1) * (ahead + back)
            last = ahead + max(back, whole - bucket) + bucket
            ways.append(Rate(alone + last + update, part, again))
    return min(ways, key=lambda way: way.seconds, default=None)


def sizes(name: str, counted: Counted) -> Row:
    """Returns the row of a model that says what it costs."""
    row: Row = {"model": name, "size": counted.size, "parameters": counted.parameters}
    row |= {"parameters_without_text": counted.visual}
    row |= {"flops_forward": counted.flops(False, False), "flops_step": counted.flops(False, True)}
    row |= {"flops_step_checkpointed": counted.flops(True, True)}
    for bf16 in (False, True):
        for again in (False, True):
            key = ("bf16" if bf16 else "float32") + ("_checkpointed" if again else "")
            row[f"saved_{key}"] = round(counted.per_picture(bf16, again))
            if bf16:
                row[f"peak_{key}"] = round(counted.per_picture(True, again, peak=True))
    row |= {"operators": len(counted.costs[True, False][0].step), "data_bytes": counted.inputs}
    return row | {"state_bytes": 16 * counted.parameters, "gradients": 4 * counted.parameters}


def cards(name: str, counted: Counted) -> list[Row]:
    """Returns the rows of a model that say what cards would do.

    The batch is that of the configuration, shared out, or as much on each card.
    """
    rows = list[Row]()
    for number, node, network in CARDS:
        for each in dict.fromkeys((counted.batch // number, counted.batch)):
            row: Row = {"model": name, "cards": number, "network": network, "batch": each * number}
            found, alone = rate(counted, each, number, node), rate(counted, each * number)
            if each == 0 or found is None or alone is None:
                rows.append(row | {"micro_batch": "does not fit" if each else "too few pictures"})
                continue
            images = each * number / found.seconds
            used = images * counted.flops(False, True) / (number * H100.flops)
            sent = 2 * (number - 1) / number * 4 * counted.parameters
            rows.append(
                row
                | {"micro_batch": found.part, "checkpointing": "yes" if found.again else "no"}
                | {"seconds": f"{found.seconds:.3g}", "images/s": f"{images:.3g}"}
                | {"efficiency": f"{alone.seconds / number / found.seconds:.2f}"}
                | {"MFU": f"{used:.2f}", "sent, MB a card": f"{sent / 1e6:.4g}"}
                | {"data, MB/s": f"{images * counted.inputs / 1e6:.3g}"}
            )
    return rows


def megabytes(row: Mapping[str, str], key: str) -> str:
    """Returns what a picture leaves for the backward pass."""
    return f"{float(row[f'saved_{key}']) / 1e6:,.1f}"


def linked(name: str) -> str:
    """Returns a model's name with its configuration."""
    return name if name in BATCHES else f"[{name}](../configs/{name}.yaml)"


def show(page: Path, results: Path) -> None:
    """Writes the tables of the page from those of the files that are there."""

    def rows(name: str) -> list[dict[str, str]]:
        path = results / f"scaling{name}.csv"
        return list(csv.DictReader(path.open())) if path.exists() else []

    costs, state = list[list[str]](), list[list[str]]()
    for row in rows(""):
        total, visual = (float(row[f"parameters{k}"]) / 1e6 for k in ("", "_without_text"))
        size = f"{total:,.1f} M" + (f", {visual:,.1f} M without text" if total > visual else "")
        line = [linked(row["model"]), f"{row['size']}²", size]
        for key in ("forward", "step", "step_checkpointed"):
            line.append(f"{float(row[f'flops_{key}']) / 1e9:,.2f}")
        costs.append([*line, row["operators"]])
        line = [row["model"], megabytes(row, "float32"), megabytes(row, "float32_checkpointed")]
        for key in ("bf16", "bf16_checkpointed"):
            line.append(f"{megabytes(row, key)} / {float(row[f'peak_{key}']) / 1e6:,.1f}")
        line += [f"{float(row[k]) / 1e9:,.3f}" for k in ("state_bytes", "gradients")]
        state.append([*line, f"{int(row['data_bytes']):,}"])
    head = ["model", "pictures", "parameters", "forward", "step", "step, checkpointed", "operators"]
    in_doc(page, "costs", markdown(head, costs))
    head = ["model", "float32", "float32, checkpointed", "bf16", "bf16, checkpointed"]
    head += ["weights, moments, average: GB", "gradients: GB", "data: bytes a picture"]
    in_doc(page, "memory", markdown(head, state))
    for name in ("cards", "cpu", "h100"):
        found = rows(f"_{name}")
        lines = [[row[k] or "–" for k in row] for row in found]
        names = [k.replace("_", " ") for k in found[0]] if found else ["not measured yet"]
        in_doc(page, name, markdown(names, lines))


def main() -> None:
    """Counts, predicts, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["models", "cpu", "h100", "tables"])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    import scaling_check

    if args.part in (None, "models"):
        costs, rates = list[Row](), list[Row]()
        for name in MODELS:
            counted = count(name)
            costs.append(sizes(name, counted))
            rates += cards(name, counted)
            write(RESULTS / "scaling.csv", costs)
            write(RESULTS / "scaling_cards.csv", rates)
    if args.part in (None, "h100"):
        write(RESULTS / "scaling_h100.csv", scaling_check.h100())
    if args.part in (None, "cpu"):
        write(RESULTS / "scaling_cpu.csv", scaling_check.one_core(args.repeats))
    show(DOC, RESULTS)


if __name__ == "__main__":
    main()
