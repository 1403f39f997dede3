r"""Imagen's thresholds, and all three stages, measured on emoji.

`python benchmarks/imagen.py` after `diffusion fit --config configs/imagen_emoji_128.yaml` writes
into docs/results what is not there yet:

imagen_thresholds.csv, .png: the base of weights/ at guidance scales s, with x̂_0 as it is, clipped,
and clipped to a percentile: which share of the values is 0 or 255, how white the corners are, how
often the judge finds the own caption, and FD. Samples are drawn by UniPC in ten steps.

imagen_128.png: the prompts of prompts.txt by all three stages, drawn as
configs/imagen_emoji_cascade.yaml says.

The two upsamplers alone: upsamplers.py.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import kept
import torch
from bench import Row, fill, measured
from PIL import Image
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.data import Emoji, Images
from diffusion.guidance import ClassifierFree, Dynamic, Guidance, Static
from diffusion.metrics import EfficientNet, FrechetDistance, SampleBatch, TextMeasure
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned
from diffusion.sampler import Sampler
from diffusion.step import DDIM, UniPC
from diffusion.systems.cascade import Cascade
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

Part = Callable[[argparse.Namespace], None]
STEPS, AT_ONCE, WHITE = 10, 32, 255
THRESHOLDS: dict[str, list[Guidance]] = {"none": [], "static": [Static()], "dynamic": [Dynamic()]}
SCALES = (1.0, 3.0, 5.0, 8.0, 15.0)
SHOWN = (0, 13, 29, 41)  # of the captions, in the picture of thresholds
BASE, JUDGE = "weights/glide_emoji", "weights/judge_emoji"
TOP = "runs/imagen_emoji_128/checkpoints/last.ckpt"
UPSAMPLERS = {64: "weights/glide_emoji_upsampler", 128: TOP}


def asking(root: str, size: int, split: str, n: int) -> tuple[Images, Tensor, list[str]]:
    """Returns the data, and n pictures of a split, in [−1, 1], with their captions."""
    data = Emoji(root=root, size=size, ask=split)
    data.setup("test")
    batch = next(data.batches(split, n, n))
    return data, batch["image"], batch["text"]


def remembered(path: Path, draw: Callable[[], Tensor]) -> Tensor:
    """Returns pictures in [−1, 1] from a file, where they are once they are drawn."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        images = quantize(draw())
        with written_aside(path) as part:
            torch.save(images, part)
    return scaled(torch.load(path))


def of_base(args: argparse.Namespace, threshold: str, s: float, seed: int = 0) -> Path:
    """Returns where the pictures of the base lie."""
    return args.drawn / f"{threshold}-s{s:g}-{args.n}-{seed}.pt"


def drawn(
    model: Diffusion, request: dict[str, Tensor | list[str]], n: int, seed: int = 0
) -> Tensor:
    """Returns n samples, of which sample i has noise 100,000 seed + i."""
    parts = kept.parts(n, seed, AT_ONCE)
    cut = (({k: v[i.start : i.stop] for k, v in request.items()}, noise) for i, noise in parts)
    return torch.cat([model.generate(batch, noise) for batch, noise in cut])


def sheet(images: Tensor, texts: list[str], columns: int, path: Path) -> None:
    """Writes images with their captions, in 256 colours, for half of the bytes."""
    page = captioned(images, texts, columns).permute(1, 2, 0).numpy()
    Image.fromarray(page).quantize(256).save(path, optimize=True)


def limits(images: Tensor) -> Row:
    """Returns which share of the values is 0 or 255, and the mean of the corners, 255 in white."""
    x = quantize(images)
    share = ((x == 0) | (x == WHITE)).float().mean().item()
    return {"limits": round(share, 4), "ground": round(x[..., ::31, ::31].float().mean().item(), 1)}


def thresholds(args: argparse.Namespace) -> None:
    """Measures the base, and draws some captions: a row a threshold, a column a scale."""
    data, real, texts = asking(args.root, 32, "train", args.n)
    model = Diffusion.load_from_checkpoint(BASE).eval()
    measures = [TextMeasure(TrainedClip(JUDGE)), FrechetDistance(EfficientNet(root=args.root))]
    for measure in measures:
        measure.prepare(data, Path(".cache"))

    def images(name: str, s: float, seed: int = 0) -> Tensor:
        model.sampler = Sampler(UniPC(), STEPS, [ClassifierFree(s), *THRESHOLDS[name]])
        path = of_base(args, name, s, seed)
        return remembered(path, lambda: drawn(model, {"text": texts}, args.n, seed))

    def run(name: str, s: float, seed: int) -> Row:
        found = images(name, s, seed)
        row: Row = {"n": args.n, **limits(found)}
        row |= {f"{name}_real": value for name, value in limits(real).items()}
        seen = measured(measures, SampleBatch(quantize(found), texts=texts))
        return row | {k: round(x.value, 4) for k, x in seen.items()}

    of = ((seed, s, name) for seed in args.seeds for s in SCALES for name in THRESHOLDS)
    rows = [
        ({"threshold": name, "scale": s, "seed": seed}, partial(run, name, s, seed))
        for seed, s, name in of
    ]
    fill(args.to / "imagen_thresholds.csv", rows)
    shown = [images(name, s)[list(SHOWN)] for name in THRESHOLDS for s in SCALES]
    names = [f"{name}, s = {s:g}" for name in THRESHOLDS for s in SCALES]
    blocks = torch.stack([pictures.grid(x, 2) for x in shown])  # two by two captions each
    sheet(scaled(blocks), names, len(SCALES), args.to / "imagen_thresholds.png")


def prompts(args: argparse.Namespace) -> None:
    """Draws the prompts at 128 × 128."""
    texts = (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8").splitlines()
    samplers: list[Sampler | None] = [
        Sampler(UniPC(), 20, [ClassifierFree(3)]),
        *[Sampler(DDIM(), 25, [Static()])] * 2,
    ]
    cascade = Cascade([BASE, *UPSAMPLERS.values()], samplers)
    images = cascade.generate({"text": texts}, range(len(texts)))
    sheet(images, texts, 8, args.to / "imagen_128.png")


PARTS = {f.__name__: f for f in (thresholds, prompts)}


def arguments(about: str | None, parts: Mapping[str, Part]) -> argparse.ArgumentParser:
    """Returns what the command lines of the cascade and of its upsamplers have in common."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--drawn", type=Path, default=Path("runs/imagen_drawn"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=100, help="pictures that are drawn")
    parser.add_argument("--only", nargs="*", choices=parts)
    return parser


def main() -> None:
    """Makes what is not there yet."""
    parser = arguments(__doc__, PARTS)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of the thresholds' noise"
    )
    args = parser.parse_args()
    for name in args.only or PARTS:
        PARTS[name](args)


if __name__ == "__main__":
    main()
