r"""What the models of weights/ draw for captions of known and of new concepts, judged.

`python benchmarks/emoji_judged.py` draws what is not there yet into runs/judged and
measures it: the table docs/results/judged.csv, of weights/glide_emoji by
weights/judge_emoji, whose digest each row has, by colours and by classes; the sheets
judged_blind.png, samples alone, and judged_named.png, the same with what was asked for and the
caption that the judge finds nearest among all of the data; and, printed, the pixel error of
weights/glide_emoji_upsampler and of bilinear interpolation.
"""

import argparse
from itertools import product
from pathlib import Path

import kept
import torch
import torch.nn.functional as F
from bench import SPLITS, Row, Split, fill, measured
from torch import Tensor

from diffusion.common.pixels import scaled
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
N = 300
SHOWN, COLUMNS = 48, 12
SOLVERS: dict[str, tuple[Step, int, list[Guidance]]] = {
    "unipc20": (UniPC(), 20, []),
    "unipc20-clipped": (UniPC(), 20, [Static()]),
    "ddim50": (DDIM(), 50, []),
}
# Solver, scale and seed, that of the shipped sampler first.
WAYS: list[Way] = [
    *[("unipc20", 3.0, seed) for seed in (0, 1)],
    ("unipc20-clipped", 3.0, 0),
    ("ddim50", 3.0, 0),
    *[("unipc20", s, 0) for s in (1.0, 2.0, 4.0, 6.0)],
]
LOW, UPSAMPLED = 32, 100


def asking(root: str, split: Split) -> Emoji:
    """Returns the data, whose samples have the captions of a split."""
    data = Emoji(root=root, ask=split)
    data.setup("test")
    return data


def folder(out: Path, way: Way, split: Split) -> Path:
    """Returns where the pictures of a way lie."""
    solver, s, seed = way
    return out / f"{solver}-s{s:g}-seed{seed}-{split}"


def draw(root: str, out: Path) -> None:
    """Draws all ways."""
    model = Diffusion.load_from_checkpoint("weights/glide_emoji").eval()
    cells: list[tuple[Way, Split]] = [*product(WAYS, SPLITS)]
    for way, split in cells:
        solver, s, seed = way
        step, steps, threshold = SOLVERS[solver]
        model.sampler = Sampler(step, steps, [ClassifierFree(s), *threshold])
        data = asking(root, split)

        def by(numbers: range, noise: list[int], data: Emoji = data) -> Tensor:
            return model.generate(data.measured(numbers), noise)

        kept.draw(folder(out, way, split), N, seed, by, f"{solver} s = {s:g} {split} {seed}")


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
            images = kept.drawn(folder(out, way, split), N)
            samples = SampleBatch(images, texts=data.measured(range(len(images)))["text"])
            row: Row = {"n": len(images)}
            found = measured(measures, samples)  # noqa: B023
            row |= {k: round(x.value, 4) for k, x in found.items()}
            return row | {f"n_{k}": x.n or 0 for k, x in found.items() if "asked" in k}

        about: Row = {"judge": judge.fingerprint}
        keys: list[Row] = [
            {"captions": name, "solver": solver, "scale": s, "seed": seed} | about
            for solver, s, seed in WAYS
        ]
        there = [
            (key, way)
            for key, way in zip(keys, WAYS)
            if kept.files(folder(out, way, split), N)[0].exists()
        ]
        fill(path, [(key, lambda w=way: run(w)) for key, way in there])


def sheets(root: str, out: Path, judge: TrainedClip, to: Path) -> None:
    """Draws the first samples of either split alone, and with their captions asked and found."""
    images, texts, every = list[Tensor](), list[str](), list[str]()
    for split in SPLITS:
        data = asking(root, split)
        images.append(kept.drawn(folder(out, WAYS[0], split), N)[: SHOWN // 2])
        texts += data.measured(range(SHOWN // 2))["text"]
        every = sorted({*(data.texts or ())})
    shown = scaled(torch.cat(images))
    cosines = judge.embed_image(shown) @ judge.embed_text(every).T
    found = [every[i] for i in cosines.argmax(1).tolist()]
    named = [f"{text} · {'found' if text == near else near}" for text, near in zip(texts, found)]
    pictures.save(pictures.grid(shown, COLUMNS), to / "judged_blind.png")
    pictures.save(captioned(shown, named, COLUMNS), to / "judged_named.png")


def upsampled(root: str) -> None:
    """Prints root mean square errors of pixels in [−1, 1], of 64 × 64 validation pictures."""
    data = Emoji(root=root, size=2 * LOW, low_size=LOW, ask="val")
    data.setup("test")
    batch = data.measured(range(UPSAMPLED))
    model = Diffusion.load_from_checkpoint("weights/glide_emoji_upsampler").eval()
    rows = data._captions().rows(range(UPSAMPLED))
    real = scaled(data.val_set.__getitems__(rows)["image"])
    small = batch["low_res"] if batch["low_res"].is_floating_point() else scaled(batch["low_res"])
    found = [
        model.generate({k: v[part.start : part.stop] for k, v in batch.items()}, noise)
        for part, noise in kept.parts(UPSAMPLED, 0)
    ]
    ways = {
        "glide_emoji_upsampler": torch.cat(found).clamp(-1, 1),
        "bilinear": F.interpolate(small, real.shape[2:], mode="bilinear"),
    }
    for name, images in ways.items():
        print(f"{name}: RMS {(images - real).square().mean().sqrt():.4f} of {UPSAMPLED} pictures")


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
