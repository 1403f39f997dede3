r"""Imagen's thresholds, noise on the small picture, and training on crops, measured on emoji.

`python benchmarks/imagen.py` after `diffusion fit --config configs/imagen_emoji_128.yaml` writes
into docs/results what is not there yet:

imagen_thresholds.csv, .png: the base of weights/ at guidance scales s, with x̂_0 as it is, clipped,
and clipped to a percentile: which share of the values is 0 or 255, how white the corners are, how
often the judge finds the own caption, and FD.

imagen_augmentation.csv: both upsamplers at levels of the noise on the small picture: FD of what is
made of drawn pictures, its distance to these when made small again, that of its mean colour, the
same of real pictures, and the distance to the large one that these are of, bilinear
interpolation's too.

imagen_seams.csv: 64 -> 128, trained on crops: the distance to the real picture within four pixels
of its middle lines and elsewhere, drawn whole and in four tiles, and the mean step across these.

imagen_128.png: the prompts of prompts.txt by all three stages.

Distances are roots of mean squares, in grey levels of 255. Samples are drawn by UniPC in ten steps,
but those of the last picture, which are drawn as configs/imagen_emoji_cascade.yaml says.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import kept
import torch
import torch.nn.functional as F
from bench import Row, fill, measured
from PIL import Image
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.data import Emoji, Images
from diffusion.data.requests.small_pictures import area_means
from diffusion.guidance import ClassifierFree, Dynamic, Guidance, Static
from diffusion.metrics import EfficientNet, FrechetDistance, SampleBatch, TextMeasure
from diffusion.networks import Augmentation, LowResolution
from diffusion.noise import SeededNoise
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned
from diffusion.sampler import Sampler
from diffusion.step import DDIM, UniPC
from diffusion.systems.cascade import Cascade
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

STEPS, AT_ONCE, WHITE = 10, 32, 255
THRESHOLDS: dict[str, list[Guidance]] = {"none": [], "static": [Static()], "dynamic": [Dynamic()]}
SCALES = (1.0, 3.0, 5.0, 8.0, 15.0)
LEVELS = (0, 100, 300)
SHOWN = (0, 13, 29, 41)  # of the captions, in the picture of thresholds
NEAR = 4  # pixels to either side of a seam
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


def distance(a: Tensor, b: Tensor) -> float:
    """Returns the root of the mean square of a − b, in grey levels."""
    return round((a - b).square().mean().sqrt().item() * WHITE / 2, 3)


def sheet(images: Tensor, texts: list[str], columns: int, path: Path) -> None:
    """Writes images with their captions, in 256 colours, for half of the bytes."""
    page = captioned(images, texts, columns).permute(1, 2, 0).numpy()
    Image.fromarray(page).quantize(256).save(path, optimize=True)


def enlarged(small: Tensor) -> Tensor:
    """Returns pictures of twice the side by bilinear interpolation."""
    return F.interpolate(small, scale_factor=2, mode="bilinear")


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


def at_level(model: Diffusion, level: int) -> Diffusion:
    """Gives an upsampler so much noise on the small picture when it samples."""
    for one in model.denoiser.contract.conditioners:
        if isinstance(one, LowResolution) and (old := one.augmentation):
            one.augmentation = Augmentation(old.process, old.most, level)
    return model


class Upsampling:
    """An upsampler of weights/ or runs/, and the small pictures that it is given.

    Args:
        args: Of the command.
        size: H = W of what it draws.
        small: Pictures that the stage before drew for the first training captions.
    """

    def __init__(self, args: argparse.Namespace, size: int, small: Tensor) -> None:
        self.size, self.folder, n = size, args.drawn, args.n if size < 128 else args.few
        data, _, texts = asking(args.root, size, "train", args.n)
        _, self.real, captions = asking(args.root, size, "val", args.few)
        low = area_means(self.real, size // 2)
        self.given = {"drawn": (small[:n], texts[:n]), "real": (low, captions)}
        self.distance = FrechetDistance(EfficientNet(root=args.root))
        self.distance.prepare(data, Path(".cache"))
        self.model = Diffusion.load_from_checkpoint(UPSAMPLERS[size]).eval()
        self.model.sampler = Sampler(UniPC(), STEPS, [Static()])

    def images(self, what: str, level: int) -> Tensor:
        """Returns what it makes of them."""
        low, texts = self.given[what]
        path = self.folder / f"{self.size}-{what}-{level}-{len(low)}.pt"
        request = {"low_res": low, "text": texts}
        return remembered(path, lambda: drawn(at_level(self.model, level), request, len(low)))

    def row(self, level: int) -> Row:
        """Returns the figures at a level."""
        row: Row = {f"n_{what}": len(low) for what, (low, _) in self.given.items()}
        for what, (low, _) in self.given.items():
            found = self.images(what, level)
            row[f"{what}_low"] = distance(area_means(found, low.shape[-1]), low)
            row[f"{what}_colour"] = distance(found.mean((2, 3)), low.mean((2, 3)))
        row["real_large"] = distance(self.images("real", level), self.real)
        row["real_bilinear"] = distance(enlarged(self.given["real"][0]), self.real)
        samples = SampleBatch(quantize(self.images("drawn", level)))
        seen = measured([self.distance], samples)
        return row | {name: round(x.value, 2) for name, x in seen.items()}


def augmentation(args: argparse.Namespace) -> None:
    """Measures both upsamplers, of pictures that the stage before drew and of real ones."""
    if not (path := of_base(args, "static", 3)).exists():
        raise SystemExit(
            f"{path}: not there; expected python benchmarks/imagen.py --only thresholds "
            f"--n {args.n} --drawn {args.drawn} first, which draws it"
        )
    small = scaled(torch.load(path))
    for size in UPSAMPLERS:
        stage = Upsampling(args, size, small)
        keys: list[Row] = [{"stage": f"{size // 2} -> {size}", "level": s} for s in LEVELS]
        rows = [(key, lambda k=key, s=stage: s.row(int(k["level"]))) for key in keys]
        fill(args.to / "imagen_augmentation.csv", rows)
        small = stage.images("drawn", 100)


def seams(args: argparse.Namespace) -> None:
    """Measures pictures drawn whole, and in tiles of the size that training had."""
    _, real, texts = asking(args.root, 128, "val", args.few)
    model = Diffusion.load_from_checkpoint(TOP).eval()
    model.sampler, half = Sampler(UniPC(), STEPS, [Static()]), 64
    noise = SeededNoise(model.seed, range(len(real)), model.device)
    cond = model.condition({"low_res": area_means(real, half), "text": texts, "noise": noise})
    x_T = noise.normal((3, 128, 128))

    @torch.no_grad()
    def drawn_at(top: int, left: int, side: int) -> Tensor:
        """Returns a square of all pictures, drawn alone, of the noise and small picture there."""
        low = cond.values["low_res"][..., top // 2 : (top + side) // 2, left // 2 :]
        values = {**cond.values, "low_res": low[..., : side // 2]}
        x, found = x_T[..., top : top + side, left : left + side], list[Tensor]()
        for i in torch.arange(len(x)).split(AT_ONCE):
            part = replace(cond, values={name: value[i] for name, value in values.items()})
            found.append(model.sampler(model.denoiser, model.process, x[i], part))
        return torch.cat(found)

    tiles = [torch.cat([drawn_at(i, j, half) for j in (0, half)], -1) for i in (0, half)]
    every = {"whole": drawn_at(0, 0, 128), "four tiles": torch.cat(tiles, -2)}
    every |= {"bilinear": enlarged(area_means(real, half)), "real": real}
    at = (torch.arange(128) - half + 0.5).abs() < NEAR
    near = at[:, None] | at[None]

    def run(found: Tensor) -> Row:
        found = found.clamp(-1, 1)
        down = found[..., half, :] - found[..., half - 1, :]
        steps = torch.stack([down, found[..., half] - found[..., half - 1]])
        return {
            "n": len(real),
            "near": distance(found[..., near], real[..., near]),
            "elsewhere": distance(found[..., ~near], real[..., ~near]),
            "step": round(steps.abs().mean().item() * WHITE / 2, 3),
        }

    fill(args.to / "imagen_seams.csv", [({"way": k}, lambda x=x: run(x)) for k, x in every.items()])


def prompts(args: argparse.Namespace) -> None:
    """Draws the prompts at 128 × 128."""
    texts = (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8").splitlines()
    samplers: list[Sampler | None] = [
        Sampler(DDIM(), 50, [ClassifierFree(3)]),
        *[Sampler(DDIM(), 25, [Static()])] * 2,
    ]
    cascade = Cascade([BASE, *UPSAMPLERS.values()], samplers)
    images = cascade.generate({"text": texts}, range(len(texts)))
    sheet(images, texts, 8, args.to / "imagen_128.png")


PARTS = {f.__name__: f for f in (thresholds, augmentation, seams, prompts)}


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--drawn", type=Path, default=Path("runs/imagen_drawn"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of the thresholds' noise"
    )
    parser.add_argument("--few", type=int, default=32, help="of 128 × 128 pixels, and real")
    parser.add_argument("--only", nargs="*", choices=PARTS)
    args = parser.parse_args()
    for name in args.only or PARTS:
        PARTS[name](args)


if __name__ == "__main__":
    main()
