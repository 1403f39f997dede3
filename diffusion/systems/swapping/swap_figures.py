"""What is measured of swaps, beside giving back the target, or the source."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.pixels import quantize, text_chunks
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.spec import Batch
from diffusion.systems.frozen.identities import FrozenIdentity
from diffusion.systems.swapping.paste_back import face_mask
from diffusion.systems.trainer import gather_rows

SWAPPER, TARGET, SOURCE = "swapper", "return the target", "return the source"
TRUTH = "the exact truth"
SHOWN = 8  # pairs in the picture
HALF, REACH = 5, 6  # pixels: of what is looked for around a point, and how far from it
SAME = 1.5 / 127.5  # what counts as the same pixel
EYES_AND_MOUTH = (0, 1, 3, 4)  # of the five points; the nose is the person's


class SwapFigures:
    """Collects figures of pairs, means over them, for the swapper, two baselines, and the truth.

    A picture's source is the one half the split away, or the next of another person. With the
    judge's unit embeddings J, `source` is ⟨J(out), J(source)⟩, `target` ⟨J(out), J(target)⟩, and
    `gain` their difference, which has to cross 0. In grey levels of 255, `truth` is the RMSE to the
    exact truth, where the data knows it, and `background` the RMSE to the target where the truth is
    like the target, or else outside `face_mask`. `pose` is how far, in pixels, what is around eyes
    and corners of the mouth has moved, see `displacement`. `psnr` in dB is of the swap of a picture
    with another one of the same person, for the swapper alone.

    Args:
        judge: Whose embeddings; None for no identities. It is neither trained nor saved.

    Attributes:
        known: Truths, uint8 (C, H, W), by split and numbers of source and target.
    """

    def __init__(self, judge: FrozenIdentity | None) -> None:
        self.judge = judge
        self.known: dict[tuple[str, int, int], Tensor] = {}
        self.begin()

    def begin(self) -> None:
        """Forgets all but the truths."""
        self.names: list[tuple[str, str]] = []
        self.values: list[Tensor] = []
        self.shown: list[Tensor] = []

    @torch.no_grad()
    def add(
        self,
        swap: Callable[[Mapping[str, Any], Tensor], Tensor],
        data: Identities,
        split: str,
        targets: Sequence[int],
        batch: Batch,
    ) -> None:
        """Measures the pairs of a batch.

        Args:
            swap: From a batch, whose "image" are the targets, and sources to swaps.
            data: Whose batch it is.
            split: And of which split.
            targets: The numbers of its pictures there.
            batch: With "image", the targets, and "identity".
        """
        pictures, x = data.split(split), batch["image"]
        assert isinstance(pictures, WithAnother)
        if self.judge is not None:
            self.judge.to(x.device).prepare(y.to(x.device) for y in data.shown())
        sources = [source_of(pictures, i) for i in targets]
        source = data.normalize(pictures.__getitems__(sources)["image"].to(x.device))
        truth = self._truth(data, split, sources, targets)
        truth = None if truth is None else truth.to(x)
        out, back = (swap(batch, y).float().clamp(-1, 1) for y in (source, batch["identity"]))
        found: dict[tuple[str, str], Tensor] = {}
        ways = {SWAPPER: out, TARGET: x, SOURCE: source}
        for way, shown in (ways if truth is None else {**ways, TRUTH: truth}).items():
            found |= self._identity(way, shown, x, source)
            found |= {(way, k): v for k, v in about(shown, x, truth, batch).items()}
        found[SWAPPER, "psnr"] = -10 * ((back - x) / 2).square().mean((1, 2, 3)).log10()
        self.names = list(found)
        self.values.append(torch.stack([*found.values()], 1))
        if sum(map(len, self.shown)) < SHOWN:
            kept = [source, x, out, *([] if truth is None else [truth])]
            self.shown.append(torch.stack(kept, 1)[:SHOWN].cpu())

    def _identity(
        self, way: str, shown: Tensor, target: Tensor, source: Tensor
    ) -> dict[tuple[str, str], Tensor]:
        if self.judge is None:
            return {}
        embed = self.judge.to(shown.device).embed
        J, s, t = embed(shown), embed(source), embed(target)
        to_source, to_target = (J * s).sum(1), (J * t).sum(1)
        figures = {"gain": to_source - to_target, "source": to_source, "target": to_target}
        return {(way, name): value for name, value in figures.items()}

    def _truth(
        self, data: Identities, split: str, sources: Sequence[int], targets: Sequence[int]
    ) -> Tensor | None:
        keys = [(split, i, j) for i, j in zip(sources, targets)]
        new = [key for key in keys if key not in self.known]
        if new:
            made = data.swapped(split, [i for _, i, _ in new], [j for _, _, j in new])
            if made is None:
                return None
            self.known.update(zip(new, quantize(made)))
        return data.normalize(torch.stack([self.known[key] for key in keys]))

    def rows(self, strategy: Any = None) -> dict[str, dict[str, float]]:
        """Returns the means over all pairs, by way and by name.

        Args:
            strategy: The Trainer's, to see the pairs of all processes.
        """
        values = torch.cat(self.values)
        values = gather_rows(strategy, values) if strategy is not None else values.cpu()
        self.pairs = len(values)
        found: dict[str, dict[str, float]] = {}
        for (way, name), value in zip(self.names, values.double().mean(0).tolist()):
            found.setdefault(way, {})[name] = value
        return found

    def record(self, strategy: Any, **digests: str) -> dict[str, Any]:
        """Returns what a test found, as JSON can hold it.

        Args:
            strategy: The Trainer's.
            **digests: Of what swaps, `weights`, and of what conditions, `encoder`.
        """
        rows = self.rows(strategy)
        judge = None if self.judge is None else self.judge.digest
        about = {"pairs": self.pairs, "judge": judge, **digests}
        return {"figures": rows[SWAPPER], "rows": rows, **about}

    def plot(self, record: Mapping[str, Any], path: Path) -> None:
        """Draws some pairs, a row each: source, target, swap, and the truth where it is known."""
        from PIL import Image

        pixels = quantize(torch.cat(self.shown)[:SHOWN])  # (rows, columns, C, H, W)
        page = pixels.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).expand(-1, -1, 3)
        about = {"weights": record["weights"]}
        Image.fromarray(page.numpy()).save(path, "PNG", pnginfo=text_chunks(about))


def source_of(pictures: WithAnother, i: int) -> int:
    """Returns the number of the picture half the set away, or of the next of another person.

    Raises:
        ValueError: If there is one person only.
    """
    n, person = len(pictures), pictures.persons[torch.as_tensor(pictures.rows)]
    for j in range(i + n // 2, i + n // 2 + n):
        if person[j % n] != person[i]:
            return j % n
    raise ValueError("data: pictures of one person; expected two persons to swap")


def about(out: Tensor, target: Tensor, truth: Tensor | None, batch: Batch) -> dict[str, Tensor]:
    """Returns the figures of pictures that need no judge, (B,) each."""
    if truth is None:
        outside = (1 - face_mask(out.shape[-1])).to(out)[None]
    else:
        outside = ((truth - target).abs().amax(1, keepdim=True) <= SAME).float()
    square = (out - target).square().mean(1, keepdim=True) * outside
    share = outside.expand_as(square).sum((1, 2, 3)).clamp(min=1)
    found = {"background": 127.5 * (square.sum((1, 2, 3)) / share).sqrt()}
    if truth is not None:
        found["truth"] = 127.5 * (out - truth).square().mean((1, 2, 3)).sqrt()
    if "landmarks" in batch:
        points = batch["landmarks"][:, list(EYES_AND_MOUTH)]
        found["pose"] = displacement(out, target if truth is None else truth, points)
    return found


def displacement(out: Tensor, reference: Tensor, points: Tensor) -> Tensor:
    """Returns how far what is around points of a reference has moved, mean over points, (B,).

    A square of 11 pixels around each point is looked for up to `REACH` pixels away, by the largest
    correlation of grey levels with mean and deviation taken out: so other colours do not matter.

    Args:
        out: Pictures (B, C, H, W).
        reference: Whose pose it should be, (B, C, H, W).
        points: x and y in pixels of the reference, (B, n, 2).
    """
    n, side = points.shape[1], out.shape[-1]
    centre = points.floor().long().clamp(0, side - 1).flatten(0, 1)
    where = torch.arange(len(points), device=out.device).repeat_interleave(n)

    def around(x: Tensor, half: int) -> Tensor:
        wide = F.pad(x.mean(1, keepdim=True), (half,) * 4, mode="replicate")[:, 0]
        steps = torch.arange(2 * half + 1, device=x.device)
        rows = (centre[:, 1, None] + steps)[:, :, None]
        return wide[where[:, None, None], rows, (centre[:, 0, None] + steps)[:, None]]

    wanted = centred(around(reference, HALF).flatten(1)[:, :, None])
    windows = centred(F.unfold(around(out, HALF + REACH)[:, None], 2 * HALF + 1))
    ways = torch.arange(-REACH, REACH + 1, device=out.device, dtype=torch.float32)
    far = torch.cartesian_prod(ways, ways).norm(dim=1)
    likeness = (wanted * windows).sum(1) - 1e-6 * far  # the nearest of equals
    return far[likeness.argmax(1)].view(-1, n).mean(1)


def centred(x: Tensor) -> Tensor:
    """Returns columns (B, d, n) without their mean, of length 1; those without any stay 0."""
    x = x - x.mean(1, keepdim=True)
    return x / x.norm(dim=1, keepdim=True).clamp(min=math.ulp(1.0) ** 0.5)
