r"""Fewer evaluations: a model distilled to 8, 4, 2 and 1, beside the best solvers.

`python benchmarks/distillation.py --on emoji` trains configs/distilled_emoji.yaml and its halvings,
`--steps` each (stages that are there already stay), and measures them in one run with their teacher
under several solvers: docs/results/distillation_emoji.csv and .png.

    emoji    of weights/glide_emoji: 150 captions with two seeds of noise each, distance in
             EfficientNet's features, captions found by weights/judge_emoji. Teacher and solvers are
             guided with scale 3, two passes an evaluation; students draw without, as they learnt
    fashion  of runs/flow_fashion_0, configs/flow_fashion.yaml: 1,000 pictures, distance and labels
             by LeNet; no guidance. `--steps 800 1000 800 800 --batch 64` is what was run

Neither distance is FID.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from bench import SPLITS, Bench, Row, fill, measured, plot, write
from text_to_image import SEEDS, asking, request

from diffusion.cli.main import main as diffusion
from diffusion.common.pixels import quantize
from diffusion.data import FashionMNIST
from diffusion.guidance import ClassifierFree, Guidance
from diffusion.metrics import EfficientNet, FrechetDistance, Measure, SampleBatch, TextMeasure
from diffusion.networks import TextEncoder
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DPMSolver, Step, UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

Way = tuple[Row, str, Callable[[], Sampler]]  # key, model, sampler
STAGES = (8, 4, 2, 1)  # evaluations
PARTS = ("train", "measure", "time")
SOLVERS: dict[str, tuple[Callable[[], Step], Sequence[int]]] = {  # and their evaluations
    "UniPC": (UniPC, (4, 5, 8, 20, 50)),
    "DPM-Solver++ 2M": (DPMSolver, (4, 8, 20)),
    "SDE-DPM-Solver++ 2M": (lambda: DPMSolver(eta=1.0), (8, 20, 50)),
    "DDIM": (DDIM, (4, 8, 50)),
}


class Study(Protocol):
    """A teacher, and how its students are measured."""

    @property
    def teacher(self) -> str:
        """Its checkpoint."""
        ...

    @property
    def scale(self) -> float:
        """How it is guided where it draws; 1 is not."""
        ...

    @property
    def panels(self) -> list[str]:
        """The figures that are plotted."""
        ...

    def row(self, model: Diffusion, sampler: Sampler, what: str) -> Row:
        """Returns the figures of a way of drawing, with `seconds_per_image`."""
        ...

    def request(self, n: int) -> dict[str, Any]:
        """Returns what n pictures are asked for."""
        ...


class OfFashion:
    """See `Study`."""

    scale, panels = 1.0, ["fd_lenet", "label_accuracy"]

    def __init__(self, args: argparse.Namespace) -> None:
        self.teacher = str(args.runs / "flow_fashion_0/checkpoints/last.ckpt")
        self.root, self.n, self.bench = args.root, args.n or 1000, None

    def row(self, model: Diffusion, sampler: Sampler, what: str) -> Row:
        """See `Study`."""
        if self.bench is None:
            self.bench = Bench(FashionMNIST(root=self.root), self.n, 250, Path(".cache"))
        return {"n": self.n} | self.bench(model, sampler, what)

    def request(self, n: int) -> dict[str, Any]:
        """See `Study`."""
        return {"label": torch.arange(n) % 10}


class OfEmoji:
    """See `Study`."""

    scale, panels = 3.0, ["fd_effnet", "clip_r1"]
    teacher = "weights/glide_emoji"

    def __init__(self, args: argparse.Namespace) -> None:
        self.root, self.split, self.n = args.root, args.split, args.n or 150
        self.texts: list[str] = []
        self.measures: list[Measure] = [
            TextMeasure(TrainedClip("weights/judge_emoji")),
            FrechetDistance(EfficientNet(root=args.root)),
        ]

    def row(self, model: Diffusion, sampler: Sampler, what: str) -> Row:
        """See `Study`."""
        if not self.texts:
            data = asking(self.root, self.split)
            self.texts = request(data, range(self.n))["text"]
            for measure in self.measures:
                measure.to(model.device).prepare(data, Path(".cache"))
        for part in model.modules():
            if isinstance(part, TextEncoder):
                part.remember(self.texts, Path(".cache"), progress=False)
        model.sampler = sampler
        model.generate({"text": self.texts[:2]}, [0, 1])  # warm
        each, began = list[torch.Tensor](), time.perf_counter()
        for seed in SEEDS:
            noise = [100_000 * seed + i for i in range(len(self.texts))]
            each.append(quantize(model.generate({"text": self.texts}, noise)).cpu())
        seconds = (time.perf_counter() - began) / len(self.texts) / len(SEEDS)
        samples = SampleBatch(torch.cat(each).to(model.device), texts=self.texts * len(SEEDS))
        row: Row = {"n": len(samples.images), "seconds_per_image": round(seconds, 5)}
        found = measured(self.measures, samples)
        return row | {name: round(x.value, 4) for name, x in found.items()}

    def request(self, n: int) -> dict[str, Any]:
        """See `Study`."""
        return {"text": request(asking(self.root, self.split), range(n))["text"]}


STUDIES: dict[str, Callable[[argparse.Namespace], Study]] = {"emoji": OfEmoji, "fashion": OfFashion}


def checkpoint(args: argparse.Namespace, n: int) -> Path:
    """Returns where the student of n evaluations is."""
    return args.runs / f"distilled_{args.on}_{n}/checkpoints/last.ckpt"


def distil(args: argparse.Namespace, teacher: str) -> None:
    """Trains the stages that are not there yet, each from the one before."""
    for n, steps in zip(STAGES, args.steps):
        path = checkpoint(args, n)
        if not path.exists():
            flags = [
                *("fit", "--config", f"configs/distilled_{args.on}.yaml", "--wandb", "off"),
                *("--model.start", teacher, "--model.objective.teacher.checkpoint", teacher),
                *("--model.objective.steps", str(n), "--model.sampler.steps", str(n)),
                *("--trainer.max_steps", str(steps), "--model.lr_scheduler.total", str(steps)),
                *("--data.batch_size", str(args.batch), "--data.root", args.root),
                *("--data.num_workers", "0", "--trainer.devices", "1"),
                *("--trainer.val_check_interval", "1000000"),
                *("--trainer.enable_progress_bar", "false"),
                *("--trainer.default_root_dir", str(path.parents[1])),
                *("--trainer.accelerator", "gpu" if args.device == "cuda" else "cpu"),
                *("--trainer.precision", args.precision),
            ]
            if n != max(STAGES):
                flags += ["--model.objective.guidance", "[]", "--model.objective.substeps", "2"]
            diffusion(flags)
        teacher = str(path)


def ways(args: argparse.Namespace, study: Study) -> list[Way]:
    """Returns the students there are, and the teacher's solvers."""
    rows = list[Way]()
    for n in STAGES:
        if (path := checkpoint(args, n)).exists():
            key: Row = {"way": "distilled", "evaluations": n}
            rows.append((key, str(path), lambda n=n: Sampler(DDIM(), n)))
    guides: list[Guidance] = [] if study.scale == 1 else [ClassifierFree(study.scale)]
    for name, (step, counts) in SOLVERS.items():
        for n in counts:
            make = lambda s=step, n=n: Sampler(s(), n, guides)  # noqa: E731
            rows.append(({"way": name, "evaluations": n}, study.teacher, make))
    return rows


def timed(path: Path, ways: Sequence[Way], load: Callable[[str], Diffusion], study: Study) -> None:
    """Measures the seconds of all rows anew, in turn: the least of three times 25 pictures."""
    rows, asked = list(csv.DictReader(path.open())), study.request(25)
    found: dict[tuple[str, ...], list[float]] = {}
    for _ in range(4):
        for key, model_path, make in ways:
            model = load(model_path)
            model.sampler = make()
            began = time.perf_counter()
            model.generate(asked, range(25))
            each = found.setdefault(tuple(map(str, key.values())), [])
            each.append((time.perf_counter() - began) / 25)
    for row in rows:  # the first time reads texts
        row["seconds_per_image"] = f"{min(found[row['way'], row['evaluations']][1:]):.4g}"
    write(path, rows)


def main() -> None:
    """Trains and measures what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--on", choices=STUDIES, default="emoji")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="32-true", help="of training")
    parser.add_argument("--steps", type=int, nargs=4, default=[960, 600, 480, 360])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--n", type=int, help="captions or pictures; otherwise as above")
    parser.add_argument("--split", choices=SPLITS, default="train", help="of the emoji")
    parser.add_argument("--root", default="data", help="where the data are")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    study, models = STUDIES[args.on](args), dict[str, Diffusion]()
    path = args.to / f"distillation_{args.on}.csv"

    def load(file: str) -> Diffusion:
        if file not in models:
            models[file] = Diffusion.load_from_checkpoint(file).eval().to(args.device)
        return models[file]

    def run(key: Row, file: str, make: Callable[[], Sampler]) -> Row:
        return study.row(load(file), make(), f"{key['way']}, {key['evaluations']}")

    if "train" in args.only:
        distil(args, study.teacher)
    every = ways(args, study)
    if "measure" in args.only:
        fill(path, [(way[0], lambda w=way: run(*w)) for way in every])
    if "time" in args.only:
        timed(path, every, load, study)
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    if rows:
        plot(path.with_suffix(".png"), rows, "seconds_per_image", study.panels, by="way")


if __name__ == "__main__":
    main()
