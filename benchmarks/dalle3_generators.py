"""Which generators `dalle3.py` compares, and where each of them is."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.common.weights import read

WIDTH = "0.1"  # σ_rel of the averages that are measured
KINDS = ("short", "long", "noisy", "noisier", "recaptioned", "detailed")
UPSAMPLER = "upsampler"  # its folder


@dataclass(frozen=True)
class Generator:
    """What a generator reads: the weight of each of `KINDS` that it has, and its seed."""

    name: str
    captions: dict[str, float] = field(hash=False)
    seed: int = 0

    @property
    def folder(self) -> str:
        """A name for files."""
        return f"{self.name}_{self.seed}".replace(" ", "_").replace("%", "")


GENERATORS = [
    *[Generator("noisy", {"noisy": 1}, seed) for seed in range(3)],
    *[Generator("detailed", {"detailed": 1}, seed) for seed in range(3)],
    Generator("short", {"recaptioned": 1}),
    Generator("true", {"long": 1}),
    *[
        Generator(f"detailed {k}%", {"noisy": round(1 - k / 100, 2), "detailed": k / 100})
        for k in (95, 65, 80, 90)
    ],
    Generator("noise 0%", {"short": 1}),
    Generator("noise 95%", {"noisier": 1}),
]


def snapshots(args: argparse.Namespace, one: Generator) -> dict[int, Path]:
    """Returns a generator's averages by their steps."""
    files = (args.out / one.folder / "snapshots").glob(f"step_*_{WIDTH}.safetensors")
    return {int(file.name.split("_")[1]): file for file in files}


def checkpoint(args: argparse.Namespace, folder: str) -> Path:
    """Returns the checkpoint of a training, or the exported folder in its place."""
    return args.weights.get(folder, args.out / folder / "checkpoints/last.ckpt")


def steps(args: argparse.Namespace) -> dict[Generator, int]:
    """Returns which generators are measured, by the step: exported ones, or all that got far."""
    exported = [one for one in GENERATORS if one.folder in args.weights]
    if exported:
        return {one: read(checkpoint(args, one.folder))["global_step"] for one in exported}
    last = {one.folder: max(snapshots(args, one), default=0) for one in GENERATORS}
    far = [one for one in GENERATORS if last[one.folder] >= max(last.values()) / 2 > 0]
    if not far:
        raise FileNotFoundError(f"{args.out}: no generator is trained; expected --only train first")
    common: int = max(set.intersection(*({*snapshots(args, one)} for one in far)))
    return dict.fromkeys(far, common)
