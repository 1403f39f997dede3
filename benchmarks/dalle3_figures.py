"""What the generators of `dalle3.py` drew, measured and shown."""

import argparse
import csv
from pathlib import Path

import kept
import torch
from bench import SPLITS, Row, Split, fill, measured
from dalle3_drawing import PROMPTS, Prompts, asking, draw, loaded, prompts
from dalle3_generators import GENERATORS, Generator, steps
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import scaled
from diffusion.metrics import (
    AskedClass,
    AskedColours,
    EfficientNet,
    FrechetDistance,
    Measure,
    SampleBatch,
    TextMeasure,
)
from diffusion.plots import pictures
from diffusion.plots.captioned import labelled
from diffusion.systems.frozen import TrainedClip

SHOWN = 5


def rows_of(args: argparse.Namespace, one: Generator) -> Path:
    """Returns where a generator's rows are."""
    return args.out / "rows" / f"{one.folder}.csv"


def measure(args: argparse.Namespace, one: Generator, step: int) -> None:
    """Draws by a generator for all prompts of both splits, and measures what is drawn."""
    model, judge = loaded(args, one, step), TrainedClip("weights/judge_emoji")
    extractor = EfficientNet(root=args.root)
    rows_of(args, one).parent.mkdir(parents=True, exist_ok=True)
    for split in args.splits:
        short, long = asking(args, split, "short"), asking(args, split, "long")
        text, colours = TextMeasure(judge), AskedColours()
        shown, distance = AskedClass(extractor), FrechetDistance(extractor)
        by_short: list[Measure] = [text, shown, distance]
        for one_measure, data in [*((x, short) for x in by_short), (colours, long)]:
            one_measure.to(args.device).prepare(data, Path(".cache"), progress=False)
        captions = [list(data.measured(range(args.n))["text"]) for data in (short, long)]

        def run(kind: Prompts, split: Split = split) -> Row:
            asked = prompts(args, split, kind) or []
            folder = args.out / one.folder / f"drawn_{step}"
            images = torch.cat(
                [draw(model, asked, k, folder / f"{split}-{kind}-{k}") for k in args.seeds]
            )
            found: Row = {"steps": step, "n": len(images)}
            for measures, of in ((by_short, captions[0]), ([colours], captions[1])):  # noqa: B023
                batch = SampleBatch(images.to(args.device), texts=of * len(args.seeds))
                found |= {k: round(x.value, 4) for k, x in measured(measures, batch).items()}
            return found

        keys: list[tuple[Row, Prompts]] = [
            ({"captions": SPLITS[split], "prompts": kind, "generator": one.name, "seed": one.seed},
             kind)
            for kind in args.prompts
            if prompts(args, split, kind) is not None
        ]  # fmt: skip
        fill(rows_of(args, one), [(key, lambda k=kind: run(k)) for key, kind in keys])


def table(args: argparse.Namespace) -> None:
    """Gathers the rows of all generators in one table."""
    files = [rows_of(args, one) for one in GENERATORS if rows_of(args, one).exists()]
    rows = [row for file in files for row in csv.DictReader(file.open())]
    order = {str(kind): i for i, kind in enumerate(PROMPTS)}
    rows.sort(key=lambda row: (row["captions"], order[row["prompts"]]))
    with written_aside(args.to / "dalle3.csv") as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)


def sheet(args: argparse.Namespace) -> None:
    """Shows the first unseen concepts, by all kinds of prompts, a row a generator."""
    chosen = ["noisy_0", "short_0", "detailed_0", "detailed_95_0", "true_0"]
    every = [one for one in steps(args) if one.folder in chosen]
    found, names = list[Tensor](), list[str]()
    for one in sorted(every, key=lambda one: chosen.index(one.folder)):
        folder = args.out / one.folder / f"drawn_{steps(args)[one]}"
        each = [kept.drawn(folder / f"test-{kind}-0", args.n)[:SHOWN] for kind in args.prompts]
        if len(row := torch.cat([x for x in each if len(x)])):
            found.append(row)
            names.append(one.name)
    if found:
        page = labelled(pictures.grid(scaled(torch.cat(found)), len(found[0])), names)
        pictures.save(page, args.to / "dalle3.png")
