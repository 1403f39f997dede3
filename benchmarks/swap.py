r"""How well faces of persons whom training has not seen are swapped, beside doing nothing.

`python benchmarks/swap.py --name avatars --ckpt_path runs/swapper_avatars/checkpoints/last.ckpt …`
measures n pairs of the test split: docs/results/swap_NAME.csv has a row for each checkpoint, a
training of its own, and for giving back the target, or the source, and on avatars the exact truth,
the ceiling. `--diffusion` does the same with InstantIDs that draw the face anew, a row for each
size of the region (`--grown`), and the truth within that region, which is all that they can reach;
swap_diffusion.png has the last. swap_NAME.png has six sources above, six targets at the left, and
their swaps; on avatars the truth beside it. See `SwapFigures` for what is measured. Truths are
drawn once, and kept in .cache.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bench import Row, fill
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.hashing import digest
from diffusion.common.pixels import scaled
from diffusion.data.avatars import Avatars
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.identities.faces import Faces
from diffusion.plots.pictures import grid, save
from diffusion.spec import Batch
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import FrozenIdentity, PublicIdentity, TrainedIdentity
from diffusion.systems.swapping.diffusion_swap import DiffusionSwap
from diffusion.systems.swapping.paste_back import paste_back
from diffusion.systems.swapping.swap_figures import (
    SOURCE,
    SWAPPER,
    TARGET,
    TRUTH,
    SwapFigures,
    source_of,
)
from diffusion.systems.swapping.swapper import Swapper

Swap = Callable[[Batch, Tensor], Tensor]  # from a batch of targets, and sources, to swaps
DIFFUSION, WITHIN = "diffusion swap", "the exact truth within its region"
SIDE, BATCH = 6, 50
JUDGE = "runs/judge_identity_avatars/checkpoints/last.ckpt"


class Pairs:
    """Pairs of the test split, and what is found of ways to swap them.

    Args:
        data: The data.
        judge: By whom identities are judged.
        n: How many, evenly spread.
        device: Where.
    """

    def __init__(self, data: Identities, judge: FrozenIdentity, n: int, device: str) -> None:
        self.data, self.device, self.figures = data, device, SwapFigures(judge)
        pictures = data.split("test")
        assert isinstance(pictures, WithAnother)
        self.pictures, self.n = pictures, min(n, len(pictures))
        self.numbers = [i * len(pictures) // self.n for i in range(self.n)]
        persons = pictures.persons[torch.as_tensor(pictures.rows)]
        wanted = persons.unique()[:: max(1, len(persons.unique()) // SIDE)][:SIDE].tolist()
        places = [pictures.groups[person] for person in wanted]
        self.sources, self.targets = [p[0] for p in places], [p[1] for p in places]

    def batch(self, numbers: list[int]) -> dict[str, Any]:
        """Returns pictures, and others of the same persons, on the device."""
        found = self.data.on_after_batch_transfer(self.pictures.__getitems__(numbers), 0)
        found = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in found.items()}
        return {**found, "index": torch.tensor(numbers)}

    def __call__(self, swap: Swap) -> dict[str, dict[str, float]]:
        """Returns figures by way: of a swap, and of giving back the target and the source."""
        self.figures.begin()
        for start in range(0, self.n, BATCH):
            numbers = self.numbers[start : start + BATCH]
            self.figures.add(swap, self.data, "test", numbers, self.batch(numbers))
        return self.figures.rows()

    def remember(self, folder: Path) -> None:
        """Draws the truths, if they are not in a file."""
        data, known = self.data, self.figures.known
        about = digest([data.fingerprint("test"), self.numbers, self.sources, self.targets])
        path = folder / f"swaps-{about}.safetensors"
        if not path.is_file():
            self(lambda batch, source: batch["image"])
            matrix = [(i, j) for j in self.targets for i in self.sources]
            made = data.swapped("test", [i for i, _ in matrix], [j for _, j in matrix])
            if made is not None:
                pixels = ((made + 1) * 127.5).round().byte()
                known.update(zip([("test", i, j) for i, j in matrix], pixels))
            with written_aside(path) as aside:
                save_file({f"{i} {j}": x for (_, i, j), x in known.items()}, aside)
        for name, pixels in load_file(path).items():
            i, j = map(int, name.split())
            known["test", i, j] = pixels

    @torch.no_grad()
    def matrix(self, swap: Swap, path: Path) -> None:
        """Draws six sources, six targets, and all swaps, with the truths where they are known."""
        above, shown = self.batch(self.sources)["image"], self.batch(self.targets)
        left = shown["image"]
        blank = torch.ones_like(above[:1])
        rows = [blank, above]
        for k, (j, target) in enumerate(zip(self.targets, left)):
            one = {x: v[k : k + 1].expand(len(above), *v.shape[1:]) for x, v in tensors(shown)}
            rows += [target[None], swap(one, above).clamp(-1, 1)]
            keys = [("test", i, j) for i in self.sources]
            if all(key in self.figures.known for key in keys):
                truths = torch.stack([self.figures.known[key] for key in keys])
                rows += [blank, scaled(truths).to(above)]
        columns = (sum(map(len, rows)) - len(above) - 1) // len(left)
        rows.insert(2, blank.expand(columns - len(above) - 1, -1, -1, -1))
        save(grid(torch.cat(rows), columns), path)


def tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    """Returns what of a batch are tensors, by name."""
    return [(name, value) for name, value in batch.items() if isinstance(value, Tensor)]


def by_generator(system: Swapper) -> Swap:
    """Returns the swap of a Swapper."""
    return lambda batch, source: system.swap(batch["image"], source)


def by_diffusion(swap: DiffusionSwap) -> Swap:
    """Returns the swap of an InstantID, under its mask; each picture has noise of its own."""

    def call(batch: Batch, source: Tensor) -> Tensor:
        x, first = batch["image"], int(batch["index"][0])
        drawn, masks = swap(x, source, batch["landmarks"], first)
        return pasted(x, drawn, masks)

    return call


def truth_within(swap: DiffusionSwap, data: Avatars, pictures: WithAnother) -> Swap:
    """Returns the truth under the mask of an InstantID's swap, and the target elsewhere."""

    def call(batch: Batch, source: Tensor) -> Tensor:
        x, targets = batch["image"], batch["index"].tolist()
        known = data.swapped("test", [source_of(pictures, i) for i in targets], targets)
        return pasted(x, known.to(x), swap.masks(batch["landmarks"]).to(x))

    return call


def pasted(targets: Tensor, drawn: Tensor, masks: Tensor) -> Tensor:
    """Returns drawn pictures in the place of targets, under masks; see `paste_back`."""
    still = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]], dtype=torch.float64, device=targets.device)
    every = zip(targets, drawn, masks)
    return torch.stack([paste_back(x, x[None], y[None], still, m) for x, y, m in every])


def main() -> None:
    """Measures, and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--name", choices=("avatars", "faces"), default="avatars")
    parser.add_argument("--ckpt_path", nargs="*", default=[])
    parser.add_argument("--diffusion", nargs="*", default=[], help="checkpoints of InstantIDs")
    parser.add_argument("--grown", type=float, nargs="*", default=[1.0, 2.0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoder", default="", help="where the identity encoder is now")
    parser.add_argument("--judge", default=JUDGE)
    parser.add_argument("--root", default="data")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if not args.ckpt_path + args.diffusion or (args.diffusion and args.name != "avatars"):
        parser.error("expected --ckpt_path, or --diffusion with --name avatars")
    kind = {"avatars": Avatars, "faces": Faces}[args.name]
    judge = TrainedIdentity(args.judge) if args.name == "avatars" else PublicIdentity(args.root)
    pairs = Pairs(kind(root=args.root, download=False), judge, args.n, args.device)
    args.to.mkdir(parents=True, exist_ok=True)
    pairs.remember(args.cache)
    given: dict[str, Any] = {"judge": None} | (
        {"encoder": TrainedIdentity(args.encoder)} if args.encoder else {}
    )
    ways: dict[tuple[str, str, str], Swap] = {}
    for path in args.ckpt_path:
        system = Swapper.load_from_checkpoint(path, **given).to(args.device).eval()
        ways[SWAPPER, path, ""] = by_generator(system)
    for path in args.diffusion:
        model = Diffusion.load_from_checkpoint(path).to(args.device).eval()
        for grown in args.grown:
            swap = DiffusionSwap(model, repeats=args.repeats, grown=grown)
            ways[DIFFUSION, path, f"{grown:g}"] = by_diffusion(swap)
            if isinstance(pairs.data, Avatars):
                truth = truth_within(swap, pairs.data, pairs.pictures)
                ways.setdefault((WITHIN, "", f"{grown:g}"), truth)
    for file, name in ((f"swap_{args.name}.png", SWAPPER), ("swap_diffusion.png", DIFFUSION)):
        if shown := [swap for (way, *_), swap in ways.items() if way == name]:
            pairs.matrix(shown[-1], args.to / file)

    def run(swap: Swap, way: str) -> Callable[[], Row]:
        return lambda: {"n": pairs.n, **measured(swap)[way]}

    def run_within(swap: Swap) -> Callable[[], Row]:  # of other sources than the truth's, no psnr
        return lambda: {k: v for k, v in run(swap, SWAPPER)().items() if k != "psnr"}

    measured = cache(pairs)
    rows: list[tuple[Row, Callable[[], Row]]] = []
    for (way, path, grown), swap in ways.items():
        measure = run_within(swap) if way == WITHIN else run(swap, SWAPPER)
        rows.append(({"way": way, "training": path, "grown": grown}, measure))
    first = next(iter(ways.values()))
    for way in (TARGET, SOURCE, *([TRUTH] if args.name == "avatars" else [])):
        rows.append(({"way": way, "training": "", "grown": ""}, run(first, way)))
    for row in fill(args.to / f"swap_{args.name}.csv", rows):
        print({k: v if k in ("way", "training", "grown", "n") else v[:6] for k, v in row.items()})


if __name__ == "__main__":
    main()
