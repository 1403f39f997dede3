"""Figures of persons, poses and captions in pictures, which `instantid.py` explains."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench import Row
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize, scaled
from diffusion.common.progress import bar
from diffusion.data import Avatars
from diffusion.data.identities.another import WithAnother
from diffusion.metrics.identity_score import compared
from diffusion.networks import ClassifierNetwork
from diffusion.systems.embeddings.person_embedding import PersonEmbedding
from diffusion.systems.frozen import TrainedClip

AT_ONCE = 150


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
        """Returns how much nearer samples are to the picture given than to others of the person."""

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
