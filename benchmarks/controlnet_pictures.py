r"""Pictures of what ControlNets draw, into docs/results.

`python benchmarks/controlnet_pictures.py --controls runs/NAME/checkpoints/last.ckpt …` draws, for
each control NAME, of concepts that training had not seen: controlnet_NAME.png, the control with its
caption and four samples; controlnet_NAME_captions.png, a control with four captions;
controlnet_NAME_strengths.png, a control, the strengths and guess mode, all from one noise; and, for
edges, controlnet_sketches.png, of the drawings in docs/results/sketches, which
`python benchmarks/controlnet_pictures.py --sketch` draws, wobbly as by hand.
"""

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from controlnet import CONFLICT, Drawer, arguments, asking, drawers
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion.data import Images
from diffusion.plots import pictures
from diffusion.plots.captioned import captioned

ROWS, COLUMNS = 6, 4
SIDE, WOBBLE = 32, 0.45
SKETCHES: dict[str, list[list[tuple[float, float]]]] = {
    "mug": [
        [(7, 8), (8, 26), (20, 26), (21, 8), (7, 8)],
        [(21, 12), (26, 12), (27, 17), (25, 21), (20, 21)],
        [(7, 11), (14, 12), (21, 11)],
    ],
    "house": [
        [(6, 15), (6, 27), (26, 27), (26, 15)],
        [(3, 16), (16, 4), (29, 16)],
        [(13, 27), (13, 20), (18, 20), (18, 27)],
        [(8, 18), (11, 18), (11, 21), (8, 21), (8, 18)],
    ],
    "fish": [
        [(4, 16), (8, 11), (14, 9), (20, 12), (23, 16), (19, 21), (13, 23), (8, 21), (4, 16)],
        [(23, 16), (29, 10), (28, 22), (23, 16)],
        [(8, 14), (9, 15)],
        [(14, 12), (15, 16), (13, 20)],
    ],
}
CAPTIONS = {
    "mug": "a google emoji of a hot beverage",
    "house": "a google emoji of a house",
    "fish": "a google emoji of a tropical fish",
}


def sketch(strokes: Sequence[Sequence[tuple[float, float]]], seed: int) -> Image.Image:
    """Returns white strokes on black whose points are a little beside where they should be."""
    random, page = np.random.default_rng(seed), Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(page)
    for stroke in strokes:
        points = list[tuple[float, float]]()
        for (x, y), (u, v) in pairwise(stroke):
            steps = max(1, round(math.hypot(u - x, v - y) / 4))
            shares = [k / steps for k in range(steps + 1)]
            points += [(x + s * (u - x), y + s * (v - y)) for s in shares]
        shaken = np.array(points) + random.normal(0, WOBBLE, (len(points), 2))
        pen.line([(float(x), float(y)) for x, y in shaken], fill=255, width=1)
    return page


def draw_sketches(to: Path) -> None:
    """Draws the sketches that are not there yet."""
    to.mkdir(parents=True, exist_ok=True)
    for seed, (name, strokes) in enumerate(SKETCHES.items()):
        if not (path := to / f"{name}.png").exists():
            sketch(strokes, seed).save(path)


def page(path: Path, control: Tensor, images: Tensor, texts: Sequence[str], columns: int) -> None:
    """Writes rows of a control, (rows, c, H, W), and images, with all their texts in order."""
    rows = pictures.after_controls([control], images, columns)
    pictures.save(captioned(rows, texts, columns + 1), path)


def samples(drawer: Drawer, data: Images, to: Path) -> None:
    """Draws the control with its caption, and four samples."""
    numbers = [i for i in range(ROWS) for _ in range(COLUMNS)]
    batch = data.on_after_batch_transfer(data.measured(numbers), 0)
    images = drawer(batch, range(len(numbers)), "1")
    texts = [x for text in batch["text"][::COLUMNS] for x in (text, *[""] * COLUMNS)]
    control = batch[drawer.name][::COLUMNS]
    page(to / f"controlnet_{drawer.name}.png", control, images, texts, COLUMNS)


def captions(drawer: Drawer, data: Images, to: Path) -> None:
    """Draws a control with its own caption, and with those of the three next ones."""
    batch = data.on_after_batch_transfer(data.measured(range(ROWS)), 0)
    control = batch[drawer.name].repeat_interleave(COLUMNS, 0)
    asked = [batch["text"][(i + k) % ROWS] for i in range(ROWS) for k in range(COLUMNS)]
    request = {"index": torch.arange(len(asked)), "text": asked, drawer.name: control}
    images = drawer(request, [i for i in range(ROWS) for _ in range(COLUMNS)], "1")
    rows = zip(*[iter(asked)] * COLUMNS)
    texts = [x for row in rows for x in ("", *row)]
    page(to / f"controlnet_{drawer.name}_captions.png", control[::COLUMNS], images, texts, COLUMNS)


def strengths(drawer: Drawer, data: Images, to: Path, ways: Sequence[str]) -> None:
    """Draws a control at all strengths, and in guess mode, from one noise."""
    batch = data.on_after_batch_transfer(data.measured(range(ROWS)), 0)
    images = torch.stack([drawer(batch, range(ROWS), way) for way in ways], 1).flatten(0, 1)
    texts = [x for text in batch["text"] for x in (text, *ways)]
    path = to / f"controlnet_{drawer.name}_strengths.png"
    page(path, batch[drawer.name], images, texts, len(ways))


def sketched(drawer: Drawer, to: Path) -> None:
    """Draws what is sketched, with its caption."""
    files = [to / "sketches" / f"{name}.png" for name in SKETCHES]
    pixels = np.stack([np.array(Image.open(file).convert("L")) for file in files])
    control = torch.from_numpy(pixels).float()[:, None] / 255
    asked = [text for text in map(CAPTIONS.__getitem__, SKETCHES) for _ in range(COLUMNS)]
    request = {"index": torch.arange(len(asked)), "text": asked}
    request |= {drawer.name: control.repeat_interleave(COLUMNS, 0)}
    images = drawer(request, range(len(asked)), "1")
    texts = [x for text in asked[::COLUMNS] for x in (text, *[""] * COLUMNS)]
    page(to / "controlnet_sketches.png", control, images, texts, COLUMNS)


def main() -> None:
    """Draws them."""
    if sys.argv[1:] == ["--sketch"]:
        return draw_sketches(Path("docs/results/sketches"))
    args = arguments(__doc__).parse_args()
    for _, drawer in drawers(args):
        data = asking(args.root, "test", drawer)
        samples(drawer, data, args.to)
        captions(drawer, data, args.to)
        strengths(drawer, data, args.to, [way for way in args.ways if way != CONFLICT])
        if drawer.control is not None and drawer.control.kind == "edges":
            sketched(drawer, args.to)
    return None


if __name__ == "__main__":
    main()
