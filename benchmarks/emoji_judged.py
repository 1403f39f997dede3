r"""What the models of weights/ draw for captions of known and of new concepts, judged.

`python benchmarks/emoji_judged.py` draws what is not there yet into runs/judged, twenty pictures a
file, and measures it: the table docs/results/judged.csv, of weights/glide_emoji by
weights/judge_emoji, by colours and by classes; the sheets judged_blind.png, samples alone, and
judged_named.png, the same with what was asked for and the caption that the judge finds nearest
among all of the data; and, printed, the pixel error of weights/glide_emoji_upsampler and of
bilinear interpolation.
"""

import argparse
from itertools import takewhile
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import SPLITS, Row, Split, fill, measured
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.data import Emoji
from diffusion.guidance import ClassifierFree, Guidance, Static
from diffusion.metrics import (
    AskedClass,
    AskedColours,
    EfficientNet,
    FrechetDistance,
    SampleBatch,
    TextMeasure,
)
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned
from diffusion.sampler import Sampler
from diffusion.step import DDIM, Step, UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

Way = tuple[str, float, int]
N, AT_ONCE = 300, 20
SHOWN, COLUMNS = 48, 12
SOLVERS: dict[str, tuple[Step, int, list[Guidance]]] = {
    "ddim50": (DDIM(), 50, []),
    "ddim50-clipped": (DDIM(), 50, [Static()]),
    "unipc20": (UniPC(), 20, []),
}
# Solver, scale and seed, that of the shipped sampler first.
WAYS: list[Way] = [
    *[("ddim50", 3.0, seed) for seed in (0, 1)],
    ("ddim50-clipped", 3.0, 0),
    *[("unipc20", s, 0) for s in (1.0, 2.0, 3.0, 6.0)],
]
LOW, UPSAMPLED = 32, 100


def asking(root: str, split: Split) -> Emoji:
    """Returns the data, whose samples have the captions of a split."""
    data = Emoji(root=root, ask=split)
    data.setup("test")
    return data


def file(out: Path, way: Way, split: Split, first: int) -> Path:
    """Returns where twenty pictures lie."""
    solver, s, seed = way
    return out / f"{solver}-s{s:g}-seed{seed}-{split}-{first:03}.pt"


def draw(root: str, out: Path) -> None:
    """Draws all ways; sample i of seed k has noise 100,000 k + i."""
    out.mkdir(parents=True, exist_ok=True)
    model = Diffusion.load_from_checkpoint("weights/glide_emoji").eval()
    for solver, s, seed in WAYS:
        for split in SPLITS:
            data = asking(root, split)
            step, steps, threshold = SOLVERS[solver]
            model.sampler = Sampler(step, steps, [ClassifierFree(s), *threshold])
            for first in range(0, N, AT_ONCE):
                if (path := file(out, (solver, s, seed), split, first)).exists():
                    continue
                numbers = range(first, first + AT_ONCE)
                noise = [100_000 * seed + i for i in numbers]
                images = model.generate(data.measured(numbers), noise)
                with written_aside(path) as part:
                    torch.save(quantize(images), part)


def drawn(out: Path, way: Way, split: Split) -> Tensor:
    """Returns the pictures of a way that there are, uint8 (n, 3, 32, 32)."""
    files = [file(out, way, split, first) for first in range(0, N, AT_ONCE)]
    found = list(takewhile(Path.exists, files))
    return torch.cat([torch.empty(0, 3, 32, 32).byte(), *map(torch.load, found)])


def table(root: str, out: Path, judge: TrainedClip, path: Path) -> None:
    """Measures all ways on both splits; rows that are there already stay."""
    for split, name in SPLITS.items():
        data, extractor = asking(root, split), EfficientNet(root=root)
        measures = [
            TextMeasure(judge),
            AskedColours(),
            AskedClass(extractor),
            FrechetDistance(extractor),
        ]
        for measure in measures:
            measure.prepare(data, Path(".cache"))

        def run(way: Way, data: Emoji = data, split: Split = split) -> Row:
            images = drawn(out, way, split)
            samples = SampleBatch(images, texts=data.measured(range(len(images)))["text"])
            row: Row = {"n": len(images)}
            found = measured(measures, samples)  # noqa: B023
            row |= {k: round(x.value, 4) for k, x in found.items()}
            return row | {f"n_{k}": x.n or 0 for k, x in found.items() if "asked" in k}

        keys: list[Row] = [
            {"captions": name, "solver": solver, "scale": s, "seed": seed}
            for solver, s, seed in WAYS
        ]
        there = [(key, way) for key, way in zip(keys, WAYS) if len(drawn(out, way, split))]
        fill(path, [(key, lambda w=way: run(w)) for key, way in there])


def sheets(root: str, out: Path, judge: TrainedClip, folder: Path) -> None:
    """Draws the first samples of either split alone, and with their captions asked and found."""
    images, texts, every = list[Tensor](), list[str](), list[str]()
    for split in SPLITS:
        data = asking(root, split)
        images.append(drawn(out, WAYS[0], split)[: SHOWN // 2])
        texts += data.measured(range(SHOWN // 2))["text"]
        every = sorted({*(data.texts or ())})
    shown = scaled(torch.cat(images))
    cosines = judge.embed_image(shown) @ judge.embed_text(every).T
    found = [every[i] for i in cosines.argmax(1).tolist()]
    named = [f"{text} · {'found' if text == near else near}" for text, near in zip(texts, found)]
    pictures.save(pictures.grid(shown, COLUMNS), folder / "judged_blind.png")
    pictures.save(captioned(shown, named, COLUMNS), folder / "judged_named.png")


def upsampled(root: str) -> None:
    """Prints root mean square errors of pixels in [−1, 1], of 64 × 64 validation pictures."""
    data = Emoji(root=root, size=2 * LOW, low_size=LOW, ask="val")
    data.setup("test")
    batch = data.measured(range(UPSAMPLED))
    model = Diffusion.load_from_checkpoint("weights/glide_emoji_upsampler").eval()
    rows = data._captions().rows(range(UPSAMPLED))
    real = scaled(data.val_set.__getitems__(rows)["image"])
    small = batch["low_res"] if batch["low_res"].is_floating_point() else scaled(batch["low_res"])
    parts = [
        model.generate({k: v[i : i + AT_ONCE] for k, v in batch.items()}, range(i, i + AT_ONCE))
        for i in range(0, UPSAMPLED, AT_ONCE)
    ]
    ways = {
        "glide_emoji_upsampler": torch.cat(parts).clamp(-1, 1),
        "bilinear": F.interpolate(small, real.shape[2:], mode="bilinear"),
    }
    for name, found in ways.items():
        print(f"{name}: RMS {(found - real).square().mean().sqrt():.4f} of {UPSAMPLED} pictures")


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("runs/judged"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", nargs="*", choices=["draw", "table", "sheets", "upsampled"])
    args = parser.parse_args()
    only = args.only or ["draw", "table", "sheets", "upsampled"]
    if "draw" in only:
        draw(args.root, args.out)
    judge = TrainedClip("weights/judge_emoji")
    if "table" in only:
        table(args.root, args.out, judge, args.to / "judged.csv")
    if "sheets" in only:
        sheets(args.root, args.out, judge, args.to)
    if "upsampled" in only:
        upsampled(args.root)


if __name__ == "__main__":
    main()
