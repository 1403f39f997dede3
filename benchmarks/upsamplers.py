r"""The upsamplers alone: noise on the small picture, and training on crops, measured on emoji.

`python benchmarks/upsamplers.py` after `diffusion fit --config configs/imagen_emoji_128.yaml`
and `configs/dalle2_upsampler_emoji.yaml` writes into docs/results what is not there yet:

imagen_augmentation.csv: both upsamplers at levels of the noise on the small picture: FD of what is
made of drawn pictures, its distance to these when made small again, that of its mean colour, the
same of real pictures, and the distance to the large one that these are of, bilinear
interpolation's too.

imagen_seams.csv: 64 -> 128, trained on crops: the distance to the real picture within four pixels
of its middle lines and elsewhere, drawn whole and in four tiles, and the mean step across these.

dalle2_upsampler.csv: 32 -> 64 with DALL-E 2's upsampler, trained on blurred pictures, and with
GLIDE's, trained on noise, of real small pictures as they are, and blurred.

Distances are roots of mean squares, in grey levels of 255. Samples are drawn by UniPC in ten steps.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import Row, fill, measured
from imagen import (
    AT_ONCE,
    BASE,
    STEPS,
    TOP,
    UPSAMPLERS,
    WHITE,
    arguments,
    asking,
    drawn,
    remembered,
)
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.data.requests.small_pictures import area_means
from diffusion.guidance import ClassifierFree, Static
from diffusion.metrics import EfficientNet, FrechetDistance, SampleBatch
from diffusion.networks import Augmentation, Blur, LowResolution
from diffusion.noise import SeededNoise
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.diffusion import Diffusion

LEVELS = (0, 100, 300)
BLURRED = {
    "DALL-E 2's": "runs/dalle2_upsampler_emoji/checkpoints/last.ckpt",
    "GLIDE's": "weights/glide_emoji_upsampler",
}
NEAR = 4  # pixels to either side of a seam


def distance(a: Tensor, b: Tensor) -> float:
    """Returns the root of the mean square of a − b, in grey levels."""
    return round((a - b).square().mean().sqrt().item() * WHITE / 2, 3)


def enlarged(small: Tensor) -> Tensor:
    """Returns pictures of twice the side by bilinear interpolation."""
    return F.interpolate(small, scale_factor=2, mode="bilinear")


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
    _, _, texts = asking(args.root, 32, "train", args.n)
    model = Diffusion.load_from_checkpoint(BASE).eval()
    model.sampler = Sampler(UniPC(), STEPS, [ClassifierFree(3)])
    path = args.drawn / f"32-{args.n}.pt"
    small = remembered(path, lambda: drawn(model, {"text": texts}, args.n))
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


def blurred(args: argparse.Namespace) -> None:
    """Measures what a small picture that is softer than it should be does to either upsampler."""
    _, real, texts = asking(args.root, 64, "val", args.few)
    low, noise = area_means(real, 32), SeededNoise(0, range(len(real)))
    soft = Blur(p=1.0).train(low, noise)

    def run(name: str, given: Tensor) -> Row:
        made = enlarged(given)
        if name in BLURRED:
            model = at_level(Diffusion.load_from_checkpoint(BLURRED[name]).eval(), 0)
            model.sampler = Sampler(UniPC(), STEPS, [Static()])
            made = drawn(model, {"low_res": given, "text": texts}, len(given))
        row: Row = {"n": len(real), "real_large": distance(made, real)}
        return row | {"small": distance(area_means(made, 32), low)}

    rows: list[tuple[Row, Callable[[], Row]]] = [
        ({"upsampler": name, "given": what}, partial(run, name, x))
        for name in (*BLURRED, "bilinear")
        for what, x in (("as it is", low), ("blurred", soft))
    ]
    fill(args.to / "dalle2_upsampler.csv", rows)


PARTS = {f.__name__: f for f in (augmentation, seams, blurred)}


def main() -> None:
    """Makes what is not there yet."""
    parser = arguments(__doc__, PARTS)
    parser.add_argument("--few", type=int, default=32, help="of 128 × 128 pixels, and real")
    args = parser.parse_args()
    for name in args.only or PARTS:
        PARTS[name](args)


if __name__ == "__main__":
    main()
