r"""Pictures without their captions: what the judge calls them.

`python benchmarks/blind.py` after `benchmarks/text_to_image.py`, of what that has drawn: the first
captions of concepts that training has seen, a row of `SHOWN` for each way, without any caption but
the way's name, docs/results/text_to_image_blind.png; and blind.csv, how many of all that were drawn
the judge finds, among the captions of all data, nearest to their own, and to one of their concept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kept
import torch
from bench import Row, fill
from text_to_image import N, asking, folder, request
from text_to_image_drawing import Way
from torch import Tensor

from diffusion.common.pixels import scaled
from diffusion.data import Emoji
from diffusion.plots import pictures
from diffusion.plots.captioned import labelled
from diffusion.systems.frozen import TrainedClip

SHOWN = 24
WAYS = [
    Way("GLIDE", "", 3),
    Way("GLIDE, own text", "", 3),
    Way("CLIP guidance", "", 10),
    Way("DALL-E 2", "", 3),
    Way("Imagen, dynamic", "", 3),
]


def concept(caption: str) -> str:
    """Returns a caption, "a google emoji of a bed", without its style."""
    return caption.partition(" emoji of ")[2] or caption


def row(images: Tensor, texts: Sequence[str], every: Sequence[str], judge: TrainedClip) -> Row:
    """Returns how many pictures the judge calls by their own caption, and by their concept."""
    cosines = judge.embed_image(scaled(images)) @ judge.embed_text(every).T
    found = [every[int(i)] for i in cosines.argmax(1)]
    own = sum(a == b for a, b in zip(found, texts))
    same = sum(concept(a) == concept(b) for a, b in zip(found, texts))
    return {"n": len(images), "among": len(every), "own": own, "concept": same}


def main() -> None:
    """Makes the sheet and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("runs/text_to_image"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    data = asking(args.root, "train")
    batch = request(data, range(N))
    captions = Emoji(root=args.root, ask="train")
    captions.setup("test")
    texts, every = batch["text"], sorted({*(captions.texts or ())})
    judge = TrainedClip("weights/judge_emoji")
    drawn = {w.name: kept.drawn(folder(args.out, w, "train", 0), N) for w in WAYS}
    drawn = {"real pictures": (batch["image_prompt"] * 127.5 + 127.5).byte()} | drawn
    fill(
        args.to / "blind.csv",
        [({"way": k}, lambda x=x: row(x, texts, every, judge)) for k, x in drawn.items()],
    )
    sheet = torch.cat([x[:SHOWN] for k, x in drawn.items() if k != "real pictures"])
    names = [k for k in drawn if k != "real pictures"]
    grid = pictures.grid(scaled(sheet), SHOWN)
    pictures.save(labelled(grid, names), args.to / "text_to_image_blind.png")


if __name__ == "__main__":
    main()
