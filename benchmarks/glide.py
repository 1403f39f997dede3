r"""The table and the pictures of docs/results.md on guidance by texts.

`python benchmarks/glide.py --root DATA` after

    diffusion fit --config configs/glide_emoji.yaml
    diffusion fit --config configs/glide_emoji_guided.yaml
    diffusion fit --config configs/clip_emoji.yaml
    diffusion fit --config configs/clip_emoji_noisy.yaml
    diffusion fit --config configs/clip_emoji.yaml --seed_everything 1 \
      --trainer.default_root_dir runs/clip_emoji_judge

Writes CSV and PNG into docs/results/; rows that are there already are not measured again. The
judge, whose score is in the table, guided nothing and was trained from another seed.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from bench import Bench, Row, fill, plot, ways

from diffusion.data import Emoji
from diffusion.guidance import ClassifierFree, Clip, Guidance, Static
from diffusion.metrics import EfficientNet, TextMeasure
from diffusion.sampler import Sampler
from diffusion.step import DPMSolver
from diffusion.training import pictures
from diffusion.training.captioned import captioned
from diffusion.training.module import Diffusion
from diffusion.training.texts import CACHE, remember
from diffusion.training.trained_clip import TrainedClip

STEPS = 20
Split = Literal["train", "test", "pairs"]
SPLITS: dict[str, Split] = {
    "seen concepts": "train",
    "unseen concepts": "test",
    "unseen pairs": "pairs",
}
SCALES: dict[str, tuple[float, ...]] = {
    "unconditional": (0,),
    "CLIP": (3, 10),
    "noise-aware CLIP": (3, 10),
    "classifier-free": (1, 2, 4, 8),
}
PANELS = ("clip_score", "clip_r1", "label_accuracy", "fd_effnet")
PROMPTS = Path(__file__).parent / "prompts.txt"


class Ways:
    """The ways of following a text, by their names in `SCALES`.

    Args:
        runs: The folder of the runs.
    """

    def __init__(self, runs: Path) -> None:
        self.clean = TrainedClip(str(last(runs, "clip_emoji")))
        self.noisy = TrainedClip(str(last(runs, "clip_emoji_noisy")))

    def __call__(self, method: str, s: float) -> Sampler:
        """Returns the sampler of a method at a scale."""
        guides: dict[str, Callable[[], list[Guidance]]] = {
            "unconditional": lambda: [ClassifierFree(0)],
            "CLIP": lambda: [ClassifierFree(0), Clip(s, self.clean, "x_0", through=True, shifts=4)],
            "noise-aware CLIP": lambda: [ClassifierFree(0), Clip(s, self.noisy)],
            "classifier-free": lambda: [ClassifierFree(s)],
        }
        return Sampler(DPMSolver(), STEPS, [*guides[method](), Static()])


def last(runs: Path, name: str) -> Path:
    """Returns the last checkpoint of a run."""
    return runs / name / "checkpoints" / "last.ckpt"


def table(model: Diffusion, make: Ways, args: argparse.Namespace) -> None:
    """Measures every method at every scale on every split."""
    judge = TextMeasure(TrainedClip(str(last(args.runs, "clip_emoji_judge"))))
    rows: list[dict[str, str]] = []
    for name, split in SPLITS.items():
        if name not in args.only:
            continue
        bench = Bench(
            Emoji(root=args.root, ask=split), args.n, 100, CACHE, EfficientNet(), text=judge
        )
        remember(model, bench.data, CACHE, True)
        keys: list[Row] = [
            {"captions": name, "method": method, "scale": s}
            for method, scales in SCALES.items()
            for s in scales
        ]

        def sampler(key: Row) -> Sampler:
            return make(str(key["method"]), float(key["scale"]))

        out = args.out / f"glide_{split}.csv"
        rows = fill(out, ways(bench, model, keys, sampler))
        plot(args.out / f"glide_{split}.png", rows, "scale", PANELS, by="method")


def shown(model: Diffusion, make: Ways, out: Path) -> None:
    """Draws the fixed prompts, a picture a method, all from the same noise."""
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    guided = [("unconditional", 0), ("CLIP", 10), ("noise-aware CLIP", 10)]
    for method, s in [*guided, *product(["classifier-free"], (1, 2, 4, 8))]:
        model.sampler = make(method, s)
        cond = model.condition({"text": prompts})
        images = model.generate(cond, (3, 32, 32), range(len(prompts)))
        name = f"glide_{method.replace(' ', '_').replace('-', '_').lower()}_{s}.png"
        pictures.save(captioned(images, prompts, 8), out / name)


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=150)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=[*SPLITS, "pictures"], nargs="*")
    args = parser.parse_args()
    args.only = args.only or [*SPLITS, "pictures"]
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    checkpoint = last(args.runs, "glide_emoji_guided")
    model = Diffusion.load_from_checkpoint(checkpoint, map_location=args.device)
    make = Ways(args.runs)
    table(model, make, args)
    if "pictures" in args.only:
        shown(model, make, args.out)


if __name__ == "__main__":
    main()
