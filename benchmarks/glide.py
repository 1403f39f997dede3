r"""The table and the pictures of docs/results.md on guidance by texts.

`python benchmarks/glide.py --root DATA` after

    diffusion fit --config configs/glide_emoji.yaml
    diffusion fit --config configs/glide_emoji_guided.yaml
    diffusion fit --config configs/glide_emoji_inpaint.yaml
    diffusion fit --config configs/glide_emoji_upsampler.yaml
    diffusion fit --config configs/clip_emoji.yaml
    diffusion fit --config configs/clip_emoji_noisy.yaml
    diffusion fit --config configs/clip_emoji.yaml --seed_everything 1 --trainer.max_steps 400 \
      --model.lr_scheduler.total 400 --trainer.default_root_dir runs/clip_emoji_judge

all with `--trainer.precision bf16-mixed`. Writes CSV and PNG into docs/results/; rows that are
there already are not measured again. The judge, whose score is in the table, guided nothing and was
trained from another seed.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from bench import Bench, Row, fill, plot, ways

from diffusion.data import Emoji
from diffusion.guidance import ClassifierFree, Clip, Guidance, Inpaint, Static
from diffusion.metrics import EfficientNet, TextMeasure
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver, RePaint
from diffusion.systems.cascade import Cascade
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip
from diffusion.systems.texts import remember

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
    for name, split in SPLITS.items():
        if name not in args.only:
            continue
        bench = Bench(
            Emoji(root=args.root, ask=split), args.n, 100, model.cache, EfficientNet(), more=[judge]
        )
        remember(model, bench.data, model.cache, None)
        keys: list[Row] = [
            {"captions": name, "method": method, "scale": s}
            for method, scales in SCALES.items()
            for s in scales
        ]

        def sampler(key: Row) -> Sampler:
            return make(str(key["method"]), float(key["scale"]))

        out = args.out / f"glide_{split}.csv"
        rows = fill(out, ways(bench, model, keys, sampler))
        plot(args.out / f"glide_{split}.png", rows, "scale", PANELS, by="method", log=False)


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


def continued(model: Diffusion, runs: Path, root: str, out: Path) -> None:
    """Draws inpainting both ways, and editing: a column a picture, the way in rows.

    Rows of inpainted.png: the picture; what is left of it; RePaint, without training; the network
    that was trained for it. Rows of edited.png: the picture; with another style asked for, drawn
    anew from 40, 60 and 80 % of the way to noise.
    """
    data = Emoji(root=root)
    data.setup("predict")
    inpainter = Diffusion.load_from_checkpoint(last(runs, "glide_emoji_inpaint"))
    # Pairs of concept and style that training left out, though not the concept.
    batch = next(data.batches("pairs", 336))
    known, texts = batch["image"][::28], batch["text"][::28]
    mask = torch.ones(len(known), 1, 32, 32)
    mask[:, :, 14:, 8:24] = 0
    request = {"text": texts, "known": known, "mask": mask, "index": torch.arange(len(known))}
    scale = ClassifierFree(3)
    rows = [known, torch.where(mask > 0.5, known, 0)]
    for drawn, step, steps in ((model, RePaint(DDPM(), 10), 25), (inpainter, DDIM(), 50)):
        drawn.sampler = Sampler(step, steps, [scale, Static(), Inpaint()])
        drawn.eval()
        rows.append(drawn.generate(drawn.condition(request), (3, 32, 32), range(len(known))))
    pictures.save(pictures.grid(torch.cat(rows), len(known)), out / "glide_inpainted.png")
    rows = [known]
    other = [f"a google emoji of {text.split(' emoji of ')[1]}" for text in texts]
    for strength in (0.4, 0.6, 0.8):
        model.sampler = Sampler(DDIM(), 50, [scale, Static()], strength=strength)
        cond = model.condition({**request, "text": other})
        rows.append(model.generate(cond, (3, 32, 32), range(len(known))))
    pictures.save(pictures.grid(torch.cat(rows), len(known)), out / "glide_edited.png")


def upsampled(runs: Path, out: Path) -> None:
    """Draws the fixed prompts by both stages."""
    cascade = Cascade(
        [str(last(runs, name)) for name in ("glide_emoji_guided", "glide_emoji_upsampler")],
        [Sampler(DDIM(), 50, [ClassifierFree(3), Static()]), Sampler(DDIM(), 25, [Static()])],
    )
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    cond = cascade.condition({"text": prompts})
    images = cascade.generate(cond, (3, 64, 64), range(len(prompts)))
    pictures.save(captioned(images, prompts, 8), out / "glide_64.png")


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
        continued(model, args.runs, args.root, args.out)
        upsampled(args.runs, args.out)


if __name__ == "__main__":
    main()
