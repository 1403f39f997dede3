r"""What IP-Adapter and InstantID make of persons that training has not seen, measured.

`python benchmarks/instantid.py --device cuda` draws n pictures a way and a seed of the test split's
persons, each by another picture of the person, the key points and the caption of a real picture,
and measures them: docs/results/instantid.csv has a row a way, in order of their weight. A way is a
model, λ of the adapter and the strength of IdentityNet; "own" captions name the attributes of the
person, "none" are empty, "another's" name those of another person, in conflict with the picture.
It also draws two sheets: one person in eight poses, and one pose with eight persons.

Figures: `identity` is the cosine of an encoder that shares no shape, person or seed with the one
that conditions, beside that with other persons (`_floor`) and that of real pictures (`_ceiling`).
`copy` is how much nearer in pixels samples are to the picture given than to other pictures of the
person, 1 if they are the picture given. `landmarks` is the distance in pixels of five points from
those given, by a small network that is trained here on real pictures (`_ceiling`: its own error on
real test pictures), and of other samples' points (`_floor`).
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench import Row, fill
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.common.progress import bar
from diffusion.data import Avatars, KeyPoints
from diffusion.data.identities.another import WithAnother
from diffusion.guidance import ClassifierFree, ControlStrength, Guidance, ImageStrength, Static
from diffusion.metrics.identity_score import compared
from diffusion.networks import ClassifierNetwork, InstantID
from diffusion.plots import pictures
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.embeddings.person_embedding import PersonEmbedding
from diffusion.systems.frozen import TrainedClip
from diffusion.systems.texts import remember

AT_ONCE, SHOWN = 150, 8
PROMPT = "a smiling person in a blue sweater"
LAST = "runs/{}/checkpoints/last.ckpt"


@dataclass(frozen=True)
class Way:
    """How pictures are drawn: a model, λ, the strength of IdentityNet, and whose captions."""

    model: str
    weight: float
    strength: float
    captions: str = "own"

    @property
    def row(self) -> Row:
        """What tells its row from others."""
        return {
            "captions": self.captions,
            "model": self.model,
            "lambda": self.weight,
            "strength": self.strength,
        }


WAYS = [
    Way("instantid", 0, 0),  # the base
    Way("instantid", 0.8, 0.8),
    Way("instantid", 0.8, 0),
    Way("instantid", 0, 0.8),
    Way("ip_adapter", 1, 0),
    *(Way(*of, captions="none") for of in (("instantid", 0.8, 0.8), ("ip_adapter", 1, 0))),
    *(Way(*of, captions="another's") for of in (("instantid", 0.8, 0.8), ("ip_adapter", 1, 0))),
    Way("instantid", 0, 0, "none"),
    Way("instantid", 0, 0, "another's"),
    *(Way("instantid", weight, 0.8) for weight in (0.4, 1.2)),
    *(Way("instantid", 0.8, strength) for strength in (0.4, 1.2)),
    *(Way("ip_adapter", weight, 0) for weight in (0.5, 1.5)),
]


class Draw:
    """Draws requests.

    Args:
        args: The command line.
        data: What is asked.
    """

    def __init__(self, args: argparse.Namespace, data: Avatars) -> None:
        self.device, self.steps, self.scale = args.device, args.steps, args.scale
        self.models = dict[str, Diffusion]()
        for name, path in (("ip_adapter", args.adapter), ("instantid", args.instantid)):
            if not Path(path).exists():
                print(f"left out, as it is not there: {path}")
                continue
            moved = {LAST.format("glide_avatars"): args.base} if args.base else None
            model = Diffusion.load_from_checkpoint(path, moved=moved).eval().to(args.device)
            self.models[name] = model
            remember(model.denoiser.network, data, Path(args.cache), None)

    def __call__(self, way: Way, batch: dict[str, Any], noise: Sequence[int]) -> Tensor:
        """Returns pictures, uint8 (B, 3, H, W), on the CPU."""
        model = self.models[way.model]
        guides: list[Guidance] = [
            ClassifierFree(self.scale),
            Static(),
            ImageStrength("identity", way.weight),
        ]
        if isinstance(model.denoiser.network, InstantID):
            guides.append(ControlStrength("pose", way.strength))
        model.sampler = Sampler(UniPC(), self.steps, guides)
        read = {key: batch[key] for key in ("text", "identity", "pose")}
        return quantize(model.generate(move_data_to_device(read, self.device), noise)).cpu()


def requests(data: Avatars, numbers: Sequence[int], captions: str, n: int) -> dict[str, Any]:
    """Returns what samples are asked to be; in conflict, by the caption of sample i + n / 2."""
    batch = dict(data.on_after_batch_transfer(data.measured(numbers), 0))
    if captions == "none":
        batch["text"] = [""] * len(numbers)
    elif captions != "own":
        batch["text"] = data.measured([(i + n // 2) % n for i in numbers])["text"]
    return batch


class Landmarks:
    """Five points of avatars, by a small network that learns them of the training split.

    Args:
        data: The avatars.
        steps: Of training, with 256 pictures each.
        file: Where it is kept.
        device: Where it is trained.
    """

    def __init__(self, data: Avatars, steps: int, file: Path, device: str) -> None:
        self.size, self.device = data.shape[-1], device
        torch.manual_seed(0)
        self.network = ClassifierNetwork(
            image_size=self.size, num_classes=10, channels=32, multipliers=[1, 2, 4], attention=[],
            blocks=1, head_width=32, patch=4,
        ).to(device)  # fmt: skip
        if file.exists():
            self.network.load_state_dict(torch.load(file, map_location=device, weights_only=True))
        else:
            self._train(data, steps)
            with written_aside(file) as part:
                torch.save(self.network.state_dict(), part)

    def _train(self, data: Avatars, steps: int) -> None:
        parts = [(quantize(b["image"]), b["landmarks"]) for b in data.batches("train")]
        images, points = (torch.cat(x).to(self.device) for x in zip(*parts))
        optimizer = torch.optim.AdamW(self.network.parameters(), 2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, max(steps, 2))
        with bar("steps") as progress:
            task = progress.add_task("Learning landmarks", total=steps)
            for _ in range(steps):
                rows = torch.randint(len(images), (256,), device=self.device)
                error = self._read(scaled(images[rows])) - points[rows]
                loss = F.smooth_l1_loss(error, torch.zeros_like(error))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.advance(task)

    def _read(self, x: Tensor) -> Tensor:
        t = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return self.size * (0.5 + self.network(x, t).view(-1, 5, 2))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Returns points in pixels, (B, 5, 2), of uint8 pictures."""
        self.network.eval()
        parts = images.split(AT_ONCE)
        return torch.cat([self._read(scaled(part.to(self.device))).cpu() for part in parts])


def far(a: Tensor, b: Tensor) -> float:
    """Returns the mean distance of points (n, 5, 2) in pixels."""
    return (a - b).norm(dim=-1).mean().item()


class Table:
    """Measures pictures of requests.

    Args:
        args: The command line.
        data: What is asked.
        asked: All requests.
    """

    def __init__(self, args: argparse.Namespace, data: Avatars, asked: dict[str, Any]) -> None:
        self.judge, self.text = PersonEmbedding(args.judge), None
        if args.text != "none":
            self.text = TrainedClip(args.text)
        conditions = PersonEmbedding(args.encoder)
        if self.judge.fingerprint == conditions.fingerprint:
            raise ValueError(f"--judge: {args.judge}; expected another encoder than conditions")
        self.landmarks = Landmarks(
            data, args.landmark_steps, args.out / "landmarks.pt", args.device
        )
        self.asked, self.data = asked, data
        real = [(quantize(b["image"]), b["landmarks"]) for b in data.batches("test", n=500)]
        images, points = (torch.cat(x) for x in zip(*real))
        self.own_error = far(self.landmarks(images), points)
        pictures_of = data.split("test")
        assert isinstance(pictures_of, WithAnother)
        self.given = quantize(asked["identity"])
        self.persons, self.points = asked["person"], asked["landmarks"]
        rows = data.likenesses()
        assert rows is not None
        targets = rows.rows(range(len(self.persons)))
        self.real = pictures_of.__getitems__(targets)["image"]
        place = {target: pictures_of.others([target], [0])[0] for target in targets}
        turns = pictures_of.groups.values()
        groups = {i: group for group in turns for i in group}
        others = [[j for j in groups[i] if j not in (i, place[i])] for i in targets]
        least = min(map(len, others))
        self.others = [
            pictures_of.__getitems__([o[k] for o in others])["image"] for k in range(least)
        ]
        self.real_identity, _ = self.identity(self.real)

    @torch.no_grad()
    def identity(self, images: Tensor) -> tuple[dict[str, float], float]:
        """Returns cosine and rank-1 with the pictures given, and the cosine with others'."""
        a, b = (F.normalize(self.judge.encode(scaled(x)), dim=1) for x in (images, self.given))
        return compared(a, b, self.persons)

    def copy(self, images: Tensor) -> float:
        """Returns how much nearer samples are to the picture given than to others; see above."""

        def rmse(a: Tensor, b: Tensor) -> Tensor:
            return (a.float() - b.float()).square().flatten(1).mean(1).sqrt()

        to_given = rmse(images, self.given)
        to_others = torch.stack([rmse(images, other) for other in self.others]).mean(0)
        apart = torch.stack([rmse(self.given, other) for other in self.others]).mean(0)
        return ((to_others - to_given).mean() / apart.mean()).item()

    @torch.no_grad()
    def said(self, images: Tensor, texts: Sequence[str]) -> Row:
        """Returns the cosine of pictures and captions, and how often the own one is the nearest."""
        if self.text is None:
            return {"caption": math.nan, "caption_r1": math.nan}
        captions = sorted({*texts})
        own = torch.tensor([captions.index(text) for text in texts])
        cos = self.text.embed_image(scaled(images)) @ self.text.embed_text(captions).T
        mine = cos.gather(1, own[:, None])
        return {
            "caption": mine.mean().item(),
            "caption_r1": (cos <= mine).all(1).float().mean().item(),
        }

    def __call__(self, images: Tensor, texts: Sequence[str]) -> Row:
        """Returns the figures of pictures."""
        found, floor = self.identity(images)
        points, n = self.landmarks(images), len(images)
        row: Row = {
            "n": n,
            "identity": found["cosine"],
            "identity_floor": floor,
            "identity_ceiling": self.real_identity["cosine"],
            "rank1": found["rank1"],
            "rank1_ceiling": self.real_identity["rank1"],
            "copy": self.copy(images),
            "copy_ceiling": self.copy(self.real),
            "landmarks": far(points, self.points),
            "landmarks_floor": far(points, self.points.roll(n // 2, 0)),
            "landmarks_ceiling": self.own_error,
        }
        nothing: Row = {"caption": math.nan, "caption_r1": math.nan}
        row |= self.said(images, texts) if any(texts) else nothing
        best = self.said(self.real, self.asked["text"])
        row |= {f"{key}_ceiling": value for key, value in best.items()}
        return {key: round(float(value), 4) for key, value in row.items()}


def table(args: argparse.Namespace, data: Avatars, by: Draw) -> None:
    """Draws and measures all ways; rows that are there already stay."""
    asked = requests(data, range(args.n), "own", args.n)
    measure = Table(args, data, asked)

    def run(way: Way, seed: int) -> Row:
        batch = requests(data, range(args.n), way.captions, args.n)
        drawn = list[Tensor]()
        for first in range(0, args.n, AT_ONCE):
            rows = slice(first, min(first + AT_ONCE, args.n))
            part = {key: value[rows] for key, value in batch.items()}
            noise = [100_000 * seed + i for i in range(args.n)][rows]
            drawn.append(by(way, part, noise))
        return measure(torch.cat(drawn), batch["text"])

    keys = [
        ({**way.row, "seed": seed}, way, seed)
        for way in WAYS
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
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--scale", type=float, default=3.0, help="of classifier-free guidance")
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
