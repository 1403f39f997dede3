r"""Ways from a sentence to a picture, side by side: GLIDE, guidance by CLIP, DALL-E 2, Imagen.

`python benchmarks/text_to_image.py` draws what is not there yet into runs/text_to_image and
measures it: docs/results/text_to_image.csv has a row for each way and kind of captions, of 150
captions with two seeds of noise each. All are 32 × 32 (Imagen's base, before its upsamplers), by
UniPC with 10 steps, and judged by weights/judge_emoji, which guides nothing. FD-EffNet is no FID.

    no text      the network without its caption
    own text     one transformer of texts, trained with the network, in place of MiniLM
    CLIP         the network without its caption, guided by weights/clip_emoji through x̂_0
    noisy CLIP   the same by configs/clip_emoji_noisy.yaml's, which reads x_t itself
    prior        z by dalle2_prior_emoji.yaml, the nearer of two; then the decoder
    own picture  the decoder with z of the real picture; text as z: of the caption; no z; no text
    dynamic      Imagen's threshold; all others have none, but for x̂_0 where CLIP reads it

The network of "own text", from nothing; the first training was stopped at step 2,481:

    own="--config configs/flow_emoji.yaml --config configs/text/transformer.yaml"
    diffusion fit $own
    diffusion fit $own --model.start runs/text_transformer/checkpoints/last.ckpt \
      --model.network.dropout 0.0 --model.optimizer.lr 4e-3 --trainer.max_steps 3000 \
      --model.lr_scheduler.total 3000 --trainer.default_root_dir runs/own_text

`diversity` is the mean 1 − cos of the judge's embeddings of two samples of one caption. The sheet
text_to_image.png has the prompts of prompts.txt, a row for each way; text_to_image_costs.csv has
trained parameters and the operations of a picture, a product and a sum are two, gradients of
guidance among them, the reading of a text by MiniLM not.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import kept
import torch
from bench import SPLITS, WITH_PAIRS, Row, Split, fill, measured
from text_to_image_drawing import CLIP, STEPS, Draw, Way, gflop, present
from torch import Tensor

from diffusion.common.pixels import scaled
from diffusion.data import Emoji, Images
from diffusion.guidance import Dynamic
from diffusion.metrics import (
    AskedClass,
    AskedColours,
    EfficientNet,
    FrechetDistance,
    Measure,
    SampleBatch,
    TextMeasure,
)
from diffusion.plots import pictures
from diffusion.plots.captioned import labelled
from diffusion.systems.frozen import TrainedClip

N, SEEDS, SHOWN = 150, (0, 1), 16
PROMPTS = Path(__file__).parent / "prompts.txt"


def ways(args: argparse.Namespace) -> list[Way]:
    """Returns those whose checkpoints are there."""
    glide, own, decoder, noisy = args.glide, args.own, args.decoder, args.noisy
    every = [
        Way("GLIDE", glide, 3),
        Way("DALL-E 2", decoder, 3, "prior"),
        Way("DALL-E 2, own picture", decoder, 3, "own picture"),
        Way("DALL-E 2, text as z", decoder, 3, "text"),
        Way("GLIDE, own text", own, 3),
        Way("no text", glide, 0),
        Way("CLIP guidance", glide, 10, clip=CLIP),
        Way("noisy CLIP", glide, 10, clip=noisy),
        Way("DALL-E 2, no z", decoder, 3, "none"),
        Way("DALL-E 2, no text", decoder, 3, "prior", text=False),
        Way("Imagen, dynamic", glide, 3, threshold=Dynamic),
        *[Way("GLIDE", glide, s) for s in (1, 2, 4, 6)],
        *[Way("DALL-E 2", decoder, s, "prior") for s in (1, 6)],
        Way("CLIP guidance", glide, 40, clip=CLIP),
        Way("noisy CLIP", glide, 40, clip=noisy),
    ]
    return present(every)


def asking(root: str, split: Split) -> Images:
    """Returns the data, whose samples have the captions of a split, and its pictures beside."""
    data = Emoji(root=root, ask=split, image_prompt=True)
    data.setup("test")
    return data


def request(data: Images, numbers: Sequence[int]) -> dict[str, Any]:
    """Returns captions and pictures."""
    return dict(data.on_after_batch_transfer(data.measured(numbers), 0))


def folder(out: Path, way: Way, split: Split, seed: int) -> Path:
    """Returns where the pictures of a way lie."""
    return out / way.folder / f"{split}-{seed}"


def draw(args: argparse.Namespace, every: list[Way], by: Draw) -> None:
    """Draws all ways."""
    data = {split: asking(args.root, split) for split in args.splits}
    cells: list[tuple[Way, Split, int]] = [*product(every, args.splits, SEEDS)]
    for way, split, seed in cells:

        def run(numbers: range, noise: list[int], way: Way = way, split: Split = split) -> Tensor:
            return by(way, request(data[split], numbers), noise)

        what = f"{way.name} s = {way.scale:g} {split} {seed}"
        kept.draw(folder(args.out, way, split, seed), N, seed, run, what)


def table(args: argparse.Namespace, every: list[Way], judge: TrainedClip) -> None:
    """Measures all ways on all splits into `args.table`; rows that are there already stay."""
    for split in args.splits:
        data, extractor = asking(args.root, split), EfficientNet(root=args.root)
        measures: list[Measure] = [
            TextMeasure(judge), AskedColours(), AskedClass(extractor), FrechetDistance(extractor)
        ]  # fmt: skip
        for measure in measures:
            measure.prepare(data, Path(".cache"))
        texts = request(data, range(N))["text"]

        def run(way: Way, split: Split = split, texts: list[str] = texts) -> Row:
            each = [kept.drawn(folder(args.out, way, split, seed), N) for seed in SEEDS]
            samples = SampleBatch(torch.cat(each), texts=texts * len(SEEDS))
            row: Row = {"n": len(samples.images), "steps": STEPS}
            found = measured(measures, samples)  # noqa: B023
            row |= {name: round(x.value, 4) for name, x in found.items()}
            one, other = (judge.embed_image(scaled(images)) for images in each)
            return row | {"diversity": round((1 - (one * other).sum(1)).mean().item(), 4)}

        keys: list[tuple[Row, Way]] = [
            ({"captions": WITH_PAIRS[split], "way": way.name, "scale": way.scale}, way)
            for way in every
            if all(kept.whole(folder(args.out, way, split, k), N) for k in SEEDS)
        ]
        fill(args.table, [(key, lambda w=way: run(w)) for key, way in keys])


def sheet(args: argparse.Namespace, every: list[Way], by: Draw) -> None:
    """Draws the prompts, a row for each way at the first of its scales."""
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()[:SHOWN]
    first = dict[str, Way]()
    for way in every:
        first.setdefault(way.name, way)
    chosen = [way for way in first.values() if way.z != "own picture"]
    rows = [by(way, {"text": prompts}, range(SHOWN)) for way in chosen]
    grid = pictures.grid(torch.cat(rows), SHOWN)
    path = args.table.with_suffix(".png")
    pictures.save(labelled(grid, [way.name for way in chosen]), path)


def costs(args: argparse.Namespace, by: Draw) -> None:
    """Counts trained parameters, and what a picture costs."""

    def row(way: Way) -> Row:
        trained = sum(p.numel() for p in by.model(way.model).parameters() if p.requires_grad)
        return {"parameters": trained, "GFLOP": gflop(by, way)}

    chosen = [w for w in ways(args) if w.scale in (3, 10) and w.z in ("", "prior") and w.text]
    rows = [({"way": way.name, "scale": way.scale}, lambda w=way: row(w)) for way in chosen]
    fill(args.to / "text_to_image_costs.csv", rows)


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    last = "checkpoints/last.ckpt"
    parser.add_argument("--glide", default="weights/glide_emoji")
    parser.add_argument("--own", default=f"runs/own_text/{last}")
    parser.add_argument("--prior", default=f"runs/dalle2_prior_emoji/{last}")
    parser.add_argument("--decoder", default=f"runs/dalle2_decoder_emoji/{last}")
    parser.add_argument("--noisy", default=f"runs/clip_emoji_noisy/{last}")
    parser.add_argument("--splits", nargs="+", choices=WITH_PAIRS, default=[*SPLITS])
    parser.add_argument("--only", nargs="+", choices=["draw", "table", "sheet", "costs"])
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("runs/text_to_image"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--device", default="cpu", help="where pictures are drawn")
    args = parser.parse_args()
    args.table, only = (
        args.to / "text_to_image.csv",
        args.only or ["draw", "table", "sheet", "costs"],
    )
    every, by = ways(args), Draw(args.prior, args.device)
    if "draw" in only:
        draw(args, every, by)
    if "table" in only:
        table(args, every, TrainedClip("weights/judge_emoji"))
    if "sheet" in only:
        sheet(args, every, by)
    if "costs" in only:
        costs(args, by)


if __name__ == "__main__":
    main()
