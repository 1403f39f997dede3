r"""Whom the network of configs/faces_by_identity.yaml draws, on one sheet.

`python benchmarks/faces.py` draws docs/results/faces_by_identity.png: eight people each of those
that training has seen, from photographs that it has not, and of those that it has not seen. Below
a photograph is what is drawn by it, and below that the training photograph that is nearest to it in
pixels, mirrored ones among them. Nothing is chosen: the first photograph of each person, noise 0 to
7.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.data import Faces
from diffusion.data.identities.another import WithAnother
from diffusion.metrics.neighbours import neighbours
from diffusion.plots import pictures
from diffusion.plots.captioned import labelled
from diffusion.systems.diffusion import Diffusion

SHOWN = 8
SPLITS = {"poses": "seen people", "val": "unseen people"}


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ckpt_path", default="runs/faces_by_identity/checkpoints/last.ckpt")
    parser.add_argument("--root", default="data")
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    model = Diffusion.load_from_checkpoint(args.ckpt_path).eval()
    data = Faces(args.root, download=False, flip=True)
    data.setup("fit")
    rows, names = list[Tensor](), list[str]()
    for split, words in SPLITS.items():
        people = data.split(split)
        assert isinstance(people, WithAnother)
        first = [places[0] for places in people.groups.values()][:SHOWN]
        given = data.normalize(people.__getitems__(first)["image"])
        drawn = model.generate({"identity": given}, range(SHOWN))
        shown = (quantize(x) for x in data.shown())
        _, near = neighbours(quantize(drawn), shown, 1)
        rows += [given, drawn.clamp(-1, 1), data.normalize(near[:, 0])]
        names += [f"{words}: the photograph given", "drawn by it", "the nearest of training"]
    page = labelled(pictures.grid(torch.cat(rows), SHOWN), names)
    pictures.save(page, args.to / "faces_by_identity.png")


if __name__ == "__main__":
    main()
