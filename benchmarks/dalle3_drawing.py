"""What the generators of `dalle3.py` are asked for, and how they draw it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import kept
from bench import SPLITS, Split
from dalle3_generators import UPSAMPLER, Generator, checkpoint, snapshots
from safetensors.torch import load_file
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.data import Emoji
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.diffusion import Diffusion

Prompts = Literal["short", "detailed", "upsampled"]
PROMPTS: tuple[Prompts, ...] = ("short", "detailed", "upsampled")


def upsample(args: argparse.Namespace) -> None:
    """Writes what the upsampler makes of the short captions that generators are asked for."""
    model = PromptUpsampler.load_from_checkpoint(checkpoint(args, UPSAMPLER))
    short = [text for split in SPLITS for text in prompts(args, split, "short") or ()]
    found = dict(zip(short, model.eval().rewrite(short)))
    with written_aside(args.out / "upsampled.json") as part:
        part.write_text(json.dumps(found, indent=0, ensure_ascii=False), encoding="utf-8")
    print(*(found[x] for x in short[:: max(len(short) // 6, 1)]), sep="\n")


def loaded(args: argparse.Namespace, one: Generator, step: int) -> Diffusion:
    """Returns a generator with its averages after a step, on the device."""
    model = Diffusion.load_from_checkpoint(checkpoint(args, one.folder)).eval()
    if one.folder not in args.weights:
        left, wrong = model.load_state_dict(load_file(snapshots(args, one)[step]), strict=False)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert not wrong, wrong
        assert not trained & {*left}, left
    return model.to(args.device)


def asking(args: argparse.Namespace, split: Split, kind: Literal["short", "long"]) -> Emoji:
    """Returns the data, whose samples have the captions of a split."""
    data = Emoji(args.root, styles=args.styles, captions=kind, ask=split, download=False)
    data.setup("test")
    return data


def prompts(args: argparse.Namespace, split: Split, kind: Prompts) -> list[str] | None:
    """Returns the prompts of a split's first pictures; None without upsampled ones."""
    data = asking(args, split, "long" if kind == "detailed" else "short")
    found = list(data.measured(range(args.n))["text"])
    if kind != "upsampled":
        return found
    path = args.out / "upsampled.json"
    if not path.exists():
        return None
    of = json.loads(path.read_text(encoding="utf-8"))
    return [of[text] for text in found]


def draw(model: Diffusion, asked: Sequence[str], seed: int, folder: Path) -> Tensor:
    """Returns a picture of each prompt, uint8 (n, 3, 32, 32), drawn now or before."""

    def by(numbers: range, noise: list[int]) -> Tensor:
        return model.generate({"text": [asked[i] for i in numbers]}, noise)

    kept.draw(folder, len(asked), seed, by, folder.name)
    return kept.drawn(folder, len(asked))
