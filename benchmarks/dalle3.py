r"""DALL-E 3's question: are better captions better pictures? Fourteen generators on emoji, judged.

`python benchmarks/dalle3.py` trains, draws and measures what is not there yet in runs/dalle3, and
gathers docs/results/dalle3.csv and the sheet dalle3.png. All generators are those of
configs/dalle3_emoji.yaml with equal steps; they differ in their captions alone (and three in their
seed):

    noisy        short captions, four in five spoilt as alt texts are: `AltText`
    short        a captioner's short captions, captions_short.json in runs/dalle3
    detailed     its detailed ones, captions_detailed.json
    true         the long captions that the pictures were described by
    detailed K%  K % detailed, the rest noisy; 0 % and 100 % are noisy and detailed
    noise K%     short captions, K % of them spoilt

A row is of 150 captions with two seeds of noise, of seen or of unseen concepts, by UniPC with ten
steps at s = 3. The prompts are short captions, long ones, or short ones made long by an upsampler
that learned the captioner's detailed captions (configs/prompt_upsampler_emoji.yaml). Whatever they
are, recall@1 and class are of the pictures' short captions and colours of their long ones, so that
rows compare. Averages are those of σ_rel = 0.1 after the last step that all generators have.

`--start weights/glide_emoji` begins all of them with this model's weights, but for all that reads
its text, which starts anew: they know pictures, and learn from their captions what words mean.

`--weights noisy_0=FOLDER … upsampler=FOLDER` takes exported folders in the place of trainings, each
after its own steps and with its own averages; then these generators alone are measured.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from bench import SPLITS, Row, Split, fill, measured
from safetensors.torch import load_file
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.common.validate import first_few
from diffusion.common.weights import read, state
from diffusion.data import AltText, CaptionFile, CaptionSource, Emoji
from diffusion.guidance import ClassifierFree, Static
from diffusion.metrics import (
    AskedClass,
    AskedColours,
    EfficientNet,
    FrechetDistance,
    Measure,
    SampleBatch,
    TextMeasure,
)
from diffusion.networks import MiniLM
from diffusion.plots import pictures
from diffusion.plots.captioned import labelled
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.checkpoints.start import STREAM
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

CONFIG, LENGTH, EVERY, WIDTH = "configs/dalle3_emoji.yaml", 48, 50, "0.1"
N, AT_ONCE, STEPS = 150, 50, 10
NOISE, MOST = 0.8, 0.95
Prompts = Literal["short", "detailed", "upsampled"]
PROMPTS: tuple[Prompts, ...] = ("short", "detailed", "upsampled")
KINDS = ("short", "long", "noisy", "noisier", "recaptioned", "detailed")
PARTS = ("texts", "upsample", "train", "measure", "table", "sheet")
UPSAMPLER = "upsampler"  # its folder
SHOWN = 5


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


def sources(out: Path) -> dict[str, Any]:
    """Returns where captions come from that are not the data's own, as YAML has it."""

    def source(kind: type[CaptionSource], **options: Any) -> dict[str, Any]:
        return {"class_path": kind.__name__, "init_args": options}

    return {
        "noisy": source(AltText, of="short", share=NOISE),
        "noisier": source(AltText, of="short", share=MOST),
        "recaptioned": source(CaptionFile, path=str(out / "captions_short.json")),
        "detailed": source(CaptionFile, path=str(out / "captions_detailed.json")),
    }


def weights(captions: dict[str, float]) -> dict[str, float]:
    """Returns the weights of all kinds, so that all generators have the same texts to read once."""
    return {kind: captions.get(kind, 0.0) for kind in KINDS}


def texts(args: argparse.Namespace) -> None:
    """Reads all captions by MiniLM, on the device, into the cache.

    Raises:
        ValueError: If a picture to train on lacks a caption of the captioner's.
    """
    made = {"AltText": AltText, "CaptionFile": CaptionFile}
    found = {k: made[x["class_path"]](**x["init_args"]) for k, x in sources(args.out).items()}
    kinds = weights({"short": 1})
    data = Emoji(args.root, styles=args.styles, download=False, captions=kinds, sources=found)
    data.setup("fit")
    for kind in ("recaptioned", "detailed"):
        written = found[kind].captions(data.names, lambda _: [])
        if bare := [name for name, texts in zip(data.names, written) if not texts]:
            raise ValueError(f"{kind}: {len(bare)} pictures lack captions: {first_few(bare)}")
    encoder = MiniLM(LENGTH, args.root).to(args.device)
    encoder.remember(data.texts or [], Path(".cache"), progress=False)
    size = max(encoder.sizes((data.texts or [])[::10]))
    print(f"{len(data.texts or [])} texts, the longest of every tenth has {size} tokens")


def command(args: argparse.Namespace, one: Generator) -> list[str]:
    """Returns how a generator is trained; its overlay is written."""
    data = {"captions": weights(one.captions), "sources": sources(args.out)}
    data |= {"root": args.root, "styles": args.styles}
    more = {
        "seed_everything": one.seed,
        "data.seed": one.seed,
        "snapshots.every_n_steps": args.every,
        "snapshots.widths": f"[{WIDTH}]",
        "trainer.max_steps": args.steps,
        "model.lr_scheduler.init_args.total": args.steps,
    } | ({"data.batch_size": args.batch_size} if args.batch_size else {})
    if args.start:
        more["model.start"] = trunk(args)
    return fit(args, CONFIG, one.folder, data, more)


def trunk(args: argparse.Namespace) -> Path:
    """Writes a model's weights without what reads its tokens, and returns the file."""
    path: Path = args.out / "trunk.ckpt"
    found = state(read(args.start), "--start", args.start)
    kept = {name: weight for name, weight in found.items() if not STREAM.search(name)}
    with written_aside(path) as part:
        torch.save({"state_dict": kept}, part)
    return path


def upsampler(args: argparse.Namespace) -> list[str]:
    """Returns how the upsampler is trained, on the captioner's detailed captions."""
    data = {"captions": {"detailed": 1.0}, "sources": sources(args.out)}
    more = {"trainer.max_steps": args.upsampler_steps, "data.batch_size": args.batch_size or 256}
    more["model.lr_scheduler.init_args.total"] = max(args.upsampler_steps, 51)
    data |= {"root": args.root, "styles": args.styles}
    return fit(args, "configs/prompt_upsampler_emoji.yaml", UPSAMPLER, data, more)


def fit(
    args: argparse.Namespace, config: str, folder: str, data: dict[str, Any], more: dict[str, Any]
) -> list[str]:
    """Returns the command of a training that resumes; an overlay for its data is written."""
    overlay = args.out / f"{folder}.json"
    with written_aside(overlay) as part:
        part.write_text(json.dumps({"data": {"init_args": data}}))
    gpu = args.device == "cuda"
    flags = {
        "wandb": "off",
        "data.download": "false",
        "samples.every_n_steps": 10**6,
        "trainer.default_root_dir": args.out / folder,
        "trainer.val_check_interval": 10**6,
        "trainer.enable_progress_bar": "false",
        "trainer.accelerator": "gpu" if gpu else "cpu",
        "trainer.devices": 1,
        "trainer.precision": "bf16-mixed" if gpu else "32-true",
        **more,
    }
    last = (args.out / folder / "checkpoints/last.ckpt").exists()
    resume = ["--ckpt_path", "last"] if last else []
    given = [x for key, value in flags.items() for x in (f"--{key}", str(value))]
    files = ["--config", config, "--config", str(overlay)]
    return [sys.executable, "-m", "diffusion", "fit", *files, *resume, *given]


def upsample(args: argparse.Namespace) -> None:
    """Writes what the upsampler makes of the short captions that generators are asked for."""
    model = PromptUpsampler.load_from_checkpoint(checkpoint(args, UPSAMPLER))
    short = [text for split in SPLITS for text in prompts(args, split, "short") or ()]
    found = dict(zip(short, model.eval().rewrite(short)))
    with written_aside(args.out / "upsampled.json") as part:
        part.write_text(json.dumps(found, indent=0, ensure_ascii=False), encoding="utf-8")
    print(*(found[x] for x in short[:: max(len(short) // 6, 1)]), sep="\n")


def side_by_side(jobs: list[tuple[str, list[str]]], args: argparse.Namespace, until: float) -> None:
    """Runs commands, some at a time, with their output in files; those too late are told to end."""
    waiting, running = list(jobs), dict[str, subprocess.Popen[bytes]]()
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    while waiting or running:
        while waiting and len(running) < args.jobs and time.monotonic() < until:
            name, words = waiting.pop(0)
            with (args.out / f"{name}.log").open("ab") as log:
                running[name] = subprocess.Popen(
                    words, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
        for name, process in [*running.items()]:
            if process.poll() is not None:
                print(f"{name}: {process.returncode} at {time.monotonic() - START:.0f} s")
                running.pop(name)
        if time.monotonic() > until:
            waiting.clear()
            for process in running.values():
                process.send_signal(signal.SIGTERM)
            until = float("inf")
        time.sleep(0.2)


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


def loaded(args: argparse.Namespace, one: Generator, step: int) -> Diffusion:
    """Returns a generator with its averages after a step, on the device."""
    model = Diffusion.load_from_checkpoint(checkpoint(args, one.folder)).eval()
    if one.folder not in args.weights:
        left, wrong = model.load_state_dict(load_file(snapshots(args, one)[step]), strict=False)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert not wrong, wrong
        assert not trained & {*left}, left
    model.sampler = Sampler(UniPC(), STEPS, [ClassifierFree(3.0), Static()])
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


def draw(model: Diffusion, asked: Sequence[str], seed: int, path: Path) -> Tensor:
    """Returns a picture of each prompt, uint8 (n, 3, 32, 32); sample i has noise 100,000 k + i."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = list[Tensor]()
        for first in range(0, len(asked), AT_ONCE):
            part = list(asked[first : first + AT_ONCE])
            noise = range(100_000 * seed + first, 100_000 * seed + first + len(part))
            parts.append(quantize(model.generate({"text": part}, noise)).cpu())
        with written_aside(path) as aside:
            torch.save(torch.cat(parts), aside)
    return torch.load(path)


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
            files = {seed: folder / f"{split}-{kind}-{seed}.pt" for seed in args.seeds}
            images = torch.cat([draw(model, asked, seed, file) for seed, file in files.items()])
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
        files = [folder / f"test-{kind}-0.pt" for kind in args.prompts]
        if there := [file for file in files if file.exists()]:
            found.append(torch.cat([torch.load(file)[:SHOWN] for file in there]))
            names.append(one.name)
    if found:
        page = labelled(pictures.grid(scaled(torch.cat(found)), len(found[0])), names)
        pictures.save(page, args.to / "dalle3.png")


def named(text: str) -> tuple[str, Path]:
    """Returns NAME and FOLDER of NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if name not in (UPSAMPLER, *(one.folder for one in GENERATORS)) or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text}; expected a generator's name and a folder")
    return name, Path(folder)


def arguments() -> argparse.Namespace:
    """Returns what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--generator", help="a folder's name: measures this one alone")
    parser.add_argument("--among", nargs="+", help="folders' names: trains these alone")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--upsampler_steps", type=int, default=3000, help="of the upsampler")
    parser.add_argument("--start", type=Path, help="a model whose text is learned anew")
    parser.add_argument("--every", type=int, default=EVERY, help="steps from snapshot to snapshot")
    parser.add_argument("--batch_size", type=int, help="by default the configuration's")
    parser.add_argument("--n", type=int, default=N, help="captions of a split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the noise")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=[*SPLITS])
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=[*PROMPTS])
    parser.add_argument("--weights", nargs="+", type=named, default=[], metavar="NAME=FOLDER")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--train_until", type=float, default=1e9, help="seconds from the start on")
    parser.add_argument("--styles", nargs="+", help="by default all four")
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("runs/dalle3"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    args.weights = dict(args.weights)
    return args


def main() -> None:
    """Makes what is not there yet."""
    args = arguments()
    if args.generator:
        far = steps(args)
        one = next(one for one in far if one.folder == args.generator)
        measure(args, one, far[one])
        return
    if "texts" in args.only:
        texts(args)
    if "upsample" in args.only:
        if UPSAMPLER not in args.weights:
            side_by_side([(UPSAMPLER, upsampler(args))], args, START + args.train_until)
        upsample(args)
    if "train" in args.only:
        among = args.among or [one.folder for one in GENERATORS]
        jobs = [(x.folder, command(args, x)) for x in GENERATORS if x.folder in among]
        side_by_side(jobs, args, START + args.train_until)
    if "measure" in args.only:
        far = steps(args)
        print("measured:", ", ".join(f"{one.folder} after {k} steps" for one, k in far.items()))
        words = [sys.executable, *sys.argv, "--generator"]
        side_by_side([(one.folder, [*words, one.folder]) for one in far], args, float("inf"))
    if "table" in args.only:
        table(args)
    if "sheet" in args.only:
        sheet(args)


START = time.monotonic()
if __name__ == "__main__":
    main()
