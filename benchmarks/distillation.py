r"""Fewer evaluations: weights/glide_emoji distilled to 8, 4, 2 and 1, beside the best solvers.

`python benchmarks/distillation.py` trains configs/distilled_emoji.yaml and its halvings, each for
its share of `--seconds` (stages that are there already stay), and measures in one run: 150 captions
with two seeds of noise each, distance in EfficientNet's features (no FID), recall of the captions
by weights/judge_emoji, and the wall time of a picture. docs/results/distillation.csv and .png.
Teacher and solvers are guided with scale 3, which costs two passes an evaluation; the students draw
without guidance, which they were taught.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from bench import SPLITS, Row, Split, fill, measured
from matplotlib.figure import Figure
from text_to_image import SEEDS, asking, request

from diffusion.cli.main import main as diffusion
from diffusion.common.pixels import quantize
from diffusion.guidance import ClassifierFree, Guidance, Static
from diffusion.metrics import EfficientNet, FrechetDistance, Measure, SampleBatch, TextMeasure
from diffusion.networks import TextEncoder
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DPMSolver, Step, UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

TEACHER, CONFIG = "weights/glide_emoji", "configs/distilled_emoji.yaml"
STAGES = {8: 0.4, 4: 0.25, 2: 0.2, 1: 0.15}  # evaluations, and their share of the time
SOLVERS: dict[str, Callable[[], Step]] = {"UniPC": UniPC, "DPM-Solver++": DPMSolver, "DDIM": DDIM}
STEPS = (4, 5, 8, 10, 20, 50)


def checkpoint(runs: Path, n: int) -> Path:
    """Returns where the student of n evaluations is."""
    return runs / f"distilled_emoji_{n}/checkpoints/last.ckpt"


def distil(args: argparse.Namespace) -> None:
    """Trains the stages that are not there yet, each from the one before."""
    before = TEACHER
    for n, share in STAGES.items():
        path, seconds = checkpoint(args.runs, n), round(share * args.seconds)
        if not path.exists():
            flags = [
                *("fit", "--config", CONFIG, "--wandb", "off", "--model.start", before),
                *("--model.objective.teacher.checkpoint", before),
                *("--model.objective.steps", str(n), "--model.sampler.steps", str(n)),
                *("--trainer.max_steps", str(args.most), "--data.batch_size", str(args.batch)),
                *("--trainer.max_time", f"00:00:{seconds // 60:02}:{seconds % 60:02}"),
                *("--trainer.val_check_interval", "1000000", "--data.download", "false"),
                *("--data.root", args.root, "--data.num_workers", "0"),
                *("--trainer.enable_progress_bar", "false", "--trainer.devices", "1"),
                *("--trainer.default_root_dir", str(path.parents[1])),
                *("--trainer.accelerator", "gpu" if args.device == "cuda" else "cpu"),
                *("--trainer.precision", "bf16-mixed" if args.device == "cuda" else "32-true"),
            ]
            if n != max(STAGES):
                flags += ["--model.objective.guidance", "[]", "--model.objective.substeps", "2"]
            diffusion(flags)
        before = str(path)


class Measured:
    """Draws the captions of a split by a model, and measures.

    Args:
        args: Of the command line.
        split: Whose captions.
    """

    def __init__(self, args: argparse.Namespace, split: Split) -> None:
        data = asking(args.root, split)
        self.texts = request(data, range(args.n))["text"]
        self.device = args.device
        self.measures: list[Measure] = [
            TextMeasure(TrainedClip("weights/judge_emoji")),
            FrechetDistance(EfficientNet(root=args.root)),
        ]
        for measure in self.measures:
            measure.to(args.device).prepare(data, Path(".cache"))
        self.models: dict[str, Diffusion] = {}

    def model(self, path: str) -> Diffusion:
        """Returns a model that has read the texts; warmed up."""
        if path not in self.models:
            model = Diffusion.load_from_checkpoint(path).eval().to(self.device)
            for part in model.modules():
                if isinstance(part, TextEncoder):
                    part.remember(self.texts, Path(".cache"), progress=False)
            self.models[path] = model
        return self.models[path]

    def __call__(self, path: str, step: Step, steps: int, scale: float) -> Row:
        """Returns the figures of a way of drawing."""
        model = self.model(path)
        guides: list[Guidance] = [ClassifierFree(scale)] if scale != 1 else []
        model.sampler = Sampler(step, steps, [*guides, Static()])
        model.generate({"text": self.texts[:2]}, [0, 1])
        each, began = list[torch.Tensor](), time.perf_counter()
        for seed in SEEDS:
            noise = [100_000 * seed + i for i in range(len(self.texts))]
            each.append(quantize(model.generate({"text": self.texts}, noise)).cpu())
        seconds = time.perf_counter() - began
        samples = SampleBatch(torch.cat(each).to(self.device), texts=self.texts * len(SEEDS))
        row: Row = {"n": len(samples.images), "seconds": round(seconds / len(samples.images), 6)}
        found = measured(self.measures, samples)
        return row | {name: round(x.value, 4) for name, x in found.items()}


def ways(args: argparse.Namespace) -> list[tuple[Row, str, Callable[[], Step], float]]:
    """Returns (key, model, step, scale) of the teacher's solvers and of the students there are."""
    rows: list[tuple[Row, str, Callable[[], Step], float]] = [
        ({"way": name, "evaluations": n}, TEACHER, step, 3.0)
        for n in STEPS
        for name, step in SOLVERS.items()
    ]
    for n in STAGES:
        if (path := checkpoint(args.runs, n)).exists():
            rows.insert(0, ({"way": "distilled", "evaluations": n}, str(path), DDIM, 1.0))
    return rows


def plot(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Draws distance and recall against seconds a picture."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    for ax, y in zip(figure.subplots(1, 2), ("fd_effnet", "clip_r1")):
        for way in dict.fromkeys(row["way"] for row in rows):
            mine = [row for row in rows if row["way"] == way]
            points = sorted((float(row["seconds"]), float(row[y])) for row in mine)
            ax.plot(*zip(*points), "o-", label=way)
        ax.set(xscale="log", xlabel="seconds a picture", title=y)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Trains and measures what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1200, help="of training, all stages")
    parser.add_argument("--most", type=int, default=100_000, help="steps of a stage at most")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--n", type=int, default=150, help="captions")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", choices=["train", "measure"])
    args = parser.parse_args()
    if args.only != "measure":
        distil(args)
    if args.only != "train":
        measure = Measured(args, args.split)
        rows = fill(args.to / "distillation.csv", [
            (key, lambda m=model, s=step, k=key, w=scale: measure(m, s(), int(k["evaluations"]), w))
            for key, model, step, scale in ways(args)
        ])  # fmt: skip
        plot(args.to / "distillation.png", rows)


if __name__ == "__main__":
    main()
