r"""How well faces of persons whom training has not seen are swapped, beside doing nothing.

`python benchmarks/swap.py --name avatars --ckpt_path runs/swapper_avatars/checkpoints/last.ckpt …`
measures n pairs of the test split: docs/results/swap_NAME.csv has a row for each checkpoint, a
training of its own, and for giving back the target, or the source, and on avatars the exact truth,
the ceiling. swap_NAME.png has six sources above, six targets at the left, and their swaps; on
avatars the truth beside it. See `SwapFigures` for what is measured. Truths are drawn once, and kept
in .cache.
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
from diffusion.systems.frozen import FrozenIdentity, PublicIdentity, TrainedIdentity
from diffusion.systems.swapping.swap_figures import SOURCE, SWAPPER, TARGET, TRUTH, SwapFigures
from diffusion.systems.swapping.swapper import Swapper

Swap = Callable[[Tensor, Tensor], Tensor]  # from targets and sources to swaps
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
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in found.items()}

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
            self(lambda target, source: target)
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
        above, left = self.batch(self.sources)["image"], self.batch(self.targets)["image"]
        blank = torch.ones_like(above[:1])
        rows = [blank, above]
        for j, target in zip(self.targets, left):
            rows += [target[None], swap(target.expand_as(above), above).clamp(-1, 1)]
            keys = [("test", i, j) for i in self.sources]
            if all(key in self.figures.known for key in keys):
                truths = torch.stack([self.figures.known[key] for key in keys])
                rows += [blank, scaled(truths).to(above)]
        columns = (sum(map(len, rows)) - len(above) - 1) // len(left)
        rows.insert(2, blank.expand(columns - len(above) - 1, -1, -1, -1))
        save(grid(torch.cat(rows), columns), path)


def main() -> None:
    """Measures, and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--name", choices=("avatars", "faces"), default="avatars")
    parser.add_argument("--ckpt_path", nargs="+", required=True)
    parser.add_argument("--encoder", default="", help="where the identity encoder is now")
    parser.add_argument("--judge", default=JUDGE)
    parser.add_argument("--root", default="data")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    kind = {"avatars": Avatars, "faces": Faces}[args.name]
    judge = TrainedIdentity(args.judge) if args.name == "avatars" else PublicIdentity(args.root)
    pairs = Pairs(kind(root=args.root, download=False), judge, args.n, args.device)
    args.to.mkdir(parents=True, exist_ok=True)
    pairs.remember(args.cache)
    given: dict[str, Any] = {"judge": None} | (
        {"encoder": TrainedIdentity(args.encoder)} if args.encoder else {}
    )
    # Another way to swap is another entry: a function from targets and sources to pictures.
    ways: dict[tuple[str, str], Swap] = {}
    for path in args.ckpt_path:
        model = Swapper.load_from_checkpoint(path, **given).to(args.device).eval()
        ways[SWAPPER, path] = model.swap
    pairs.matrix(next(iter(ways.values())), args.to / f"swap_{args.name}.png")

    def run(swap: Swap, way: str) -> Callable[[], Row]:
        return lambda: {"n": pairs.n, **measured(swap)[way]}

    measured = cache(pairs)
    rows: list[tuple[Row, Callable[[], Row]]] = []
    for (way, path), swap in ways.items():
        rows.append(({"way": way, "training": path}, run(swap, way)))
    first = next(iter(ways.values()))
    for way in (TARGET, SOURCE, *([TRUTH] if args.name == "avatars" else [])):
        rows.append(({"way": way, "training": ""}, run(first, way)))
    for row in fill(args.to / f"swap_{args.name}.csv", rows):
        print({k: v if k in ("way", "training", "n") else v[:6] for k, v in row.items()})


if __name__ == "__main__":
    main()
