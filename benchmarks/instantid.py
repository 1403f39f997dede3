r"""What IP-Adapter and InstantID make of persons that training has not seen, measured.

`python benchmarks/instantid.py --device cuda` draws n pictures a way and a seed of the test split's
persons, each by another picture of the person, the key points and the caption of a real picture,
and measures them: docs/results/instantid.csv has a row a way, in order of their weight. A way is a
model, λ of the adapter and the strength of IdentityNet; "own" captions name the attributes of the
person, "none" are empty, "another's" name those of another person, in conflict with the picture.
A second training is measured by `--training 1 --instantid … --adapter … --main --only table`.
It also draws two sheets: one person in eight poses, and one pose with eight persons.

Figures: `identity` is the cosine of an encoder that shares no shape, person or seed with the one
that conditions, beside that with other persons (`_floor`) and that of real pictures (`_ceiling`).
`copy` is how much nearer in pixels samples are to the picture given than to other pictures of the
person, 1 if they are the picture given. `landmarks` is the distance in pixels of five points from
those given, by a small network that is trained here on real pictures (`_ceiling`: its own error on
real test pictures), and of other samples' points (`_floor`).
"""

import argparse
from pathlib import Path

import kept
import torch
from bench import Row, fill
from instantid_drawing import CAPTIONS, LAST, Draw, Way, requests
from instantid_figures import AT_ONCE, Table
from torch import Tensor

from diffusion.common.pixels import quantize, scaled
from diffusion.data import Avatars, KeyPoints
from diffusion.plots import pictures

SHOWN = 8
PROMPT = ""  # so that nothing but the pictures says who it is


BOTH = (("instantid", 0.8, 0.8), ("ip_adapter", 1, 0))
TRAINED = [Way(*of, captions=captions) for captions in CAPTIONS for of in BOTH]
BASE = [Way("instantid", 0, 0, captions) for captions in CAPTIONS]
SWEEPS = [
    *(Way("instantid", weight, 0.8) for weight in (0, 0.4, 1.2)),
    *(Way("instantid", 0.8, strength) for strength in (0, 0.4, 1.2)),
    *(Way("ip_adapter", weight, 0) for weight in (0.5, 1.5)),
]


def table(args: argparse.Namespace, data: Avatars, by: Draw) -> None:
    """Draws and measures all ways; rows that are there already stay."""
    asked = requests(data, range(args.n), "own", args.n)
    measure = Table(args, data, asked)

    def run(way: Way, seed: int) -> Row:
        batch = requests(data, range(args.n), way.captions, args.n)
        drawn = list[Tensor]()
        for rows, noise in kept.parts(args.n, seed, AT_ONCE):
            part = {key: value[rows.start : rows.stop] for key, value in batch.items()}
            drawn.append(by(way, part, noise))
        return measure(torch.cat(drawn), batch["text"])

    keys = [
        ({**way.row, "training": args.training, "seed": seed}, way, seed)
        for way in [*TRAINED, *([] if args.main else [*BASE, *SWEEPS])]
        if way.model in by.models
        for seed in args.seeds
    ]
    fill(args.to / "instantid.csv", [(key, lambda w=w, s=s: run(w, s)) for key, w, s in keys])


def sheets(args: argparse.Namespace, data: Avatars, by: Draw) -> None:
    """Draws persons in eight poses, and poses with eight persons."""
    asked = requests(data, range(4 * SHOWN), "own", 4 * SHOWN)
    first = torch.tensor([list(asked["person"]).index(p) for p in asked["person"].unique()])
    who, pose = asked["identity"][first[:SHOWN]], asked["pose"][:SHOWN]
    way, count = Way("instantid", 0.8, 0.8), len(who)

    def row(identity: Tensor, poses: Tensor) -> Tensor:
        batch = {"text": [PROMPT] * len(identity), "identity": identity, "pose": poses}
        return by(way, batch, range(len(identity)))

    blank = torch.full_like(quantize(who[:1]), 255)
    drawn = [blank, quantize(2 * pose - 1)]
    for one in who[: min(4, count)]:
        drawn += [quantize(one[None]), row(one.expand(SHOWN, -1, -1, -1), pose)]
    save(torch.cat(drawn), SHOWN + 1, args.to / "instantid_poses.png")
    drawn = [blank, quantize(who)]
    for one in pose[:4]:
        drawn += [quantize(2 * one[None] - 1), row(who, one.expand(count, -1, -1, -1))]
    save(torch.cat(drawn), count + 1, args.to / "instantid_persons.png")


def save(images: Tensor, columns: int, path: Path) -> None:
    """Writes a grid of uint8 pictures."""
    pictures.save(pictures.grid(scaled(images), columns), path)


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--adapter", default=LAST.format("ip_adapter_avatars"))
    parser.add_argument("--instantid", default=LAST.format("instantid_avatars"))
    parser.add_argument("--base", help="where the base is now, if not where it was")
    parser.add_argument("--encoder", default=LAST.format("identity_avatars"))
    parser.add_argument("--judge", default=LAST.format("judge_identity_avatars"))
    parser.add_argument(
        "--text", default=LAST.format("judge_avatars"), help="a CLIP of avatars, or none"
    )
    parser.add_argument("--training", type=int, default=0, help="its seed, a word of the rows")
    parser.add_argument("--main", action="store_true", help="without the base and other strengths")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--scale", type=float, default=2.0, help="of classifier-free guidance")
    parser.add_argument("--landmark_steps", type=int, default=800)
    parser.add_argument("--only", nargs="+", choices=["sheets", "table"])
    parser.add_argument("--root", default="data", help="where the avatars are")
    parser.add_argument("--cache", default=".cache", help="where texts are read once")
    parser.add_argument("--out", type=Path, default=Path("runs/instantid"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = Avatars(root=args.root, ask="test", controls={"pose": KeyPoints()}, download=False)
    data.setup("test")
    by = Draw(args, data)
    for name, make in (("sheets", sheets), ("table", table)):
        if name in (args.only or ("sheets", "table")):
            make(args, data, by)


if __name__ == "__main__":
    main()
