r"""Pictures without their captions: what the judge calls them.

`python benchmarks/blind.py` after `benchmarks/text_to_image.py`, of what that has drawn: the first
captions of concepts that training has seen, a row of `SHOWN` for each way, without any caption but
the way's name, docs/results/text_to_image_blind.png; and blind.csv, how many of all that were drawn
the judge finds, among the captions of all data, nearest to their own, and to one of their concept.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import kept
import torch
from bench import Row, fill
from text_to_image import N, asking, folder, request
from text_to_image_drawing import Way
from torch import Tensor

from diffusion.common.pixels import rounded, scaled
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
    assert isinstance(data, Emoji)
    batch = request(data, range(N))
    texts, every = batch["text"], sorted({*(data.texts or ())})
    judge = TrainedClip("weights/judge_emoji")
    folders = {way.name: folder(args.out, way, "train", 0) for way in WAYS}
    drawn = {name: kept.drawn(x, N) for name, x in folders.items() if kept.whole(x, N)}
    if gone := folders.keys() - drawn.keys():
        print(f"left out, as text_to_image.py has not drawn them: {', '.join(sorted(gone))}")
    real = {"real pictures": rounded(batch["image_prompt"])}
    rows: list[tuple[Row, Callable[[], Row]]] = [
        ({"way": name}, partial(row, x, texts, every, judge)) for name, x in (real | drawn).items()
    ]
    fill(args.to / "blind.csv", rows)
    if drawn:
        grid = pictures.grid(scaled(torch.cat([x[:SHOWN] for x in drawn.values()])), SHOWN)
        pictures.save(labelled(grid, [*drawn]), args.to / "text_to_image_blind.png")


if __name__ == "__main__":
    main()
