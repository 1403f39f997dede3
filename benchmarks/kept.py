"""Pictures that benchmarks draw, kept in files: what was drawn once is not drawn again."""

from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize
from diffusion.common.progress import bar

AT_ONCE = 20
By = Callable[[range, list[int]], Tensor]  # from samples and their noise to pictures in [−1, 1]


def parts(n: int, seed: int, at_once: int = AT_ONCE) -> Iterator[tuple[range, list[int]]]:
    """Yields the numbers of n samples, some at once, and of their noise, 100,000 seed + i."""
    for first in range(0, n, at_once):
        numbers = range(first, min(first + at_once, n))
        yield numbers, [100_000 * seed + i for i in numbers]


def files(folder: Path, n: int) -> list[Path]:
    """Returns where n pictures lie."""
    return [folder / f"{part[0]:04}-{part[-1]:04}.pt" for part, _ in parts(n, 0)]


def draw(folder: Path, n: int, seed: int, by: By, what: str) -> None:
    """Draws those of n pictures that are not there yet, with a progress bar."""
    folder.mkdir(parents=True, exist_ok=True)
    with bar("images") as progress:
        task = progress.add_task(what, total=n)
        for path, (numbers, noise) in zip(files(folder, n), parts(n, seed)):
            if not path.exists():
                images = quantize(by(numbers, noise)).cpu()
                with written_aside(path) as aside:
                    torch.save(images, aside)
            progress.advance(task, len(numbers))


def whole(folder: Path, n: int) -> bool:
    """Returns whether all n pictures are there."""
    return all(map(Path.exists, files(folder, n)))


def drawn(folder: Path, n: int) -> Tensor:
    """Returns those of n pictures that there are, from the first on, uint8 (≤ n, C, H, W)."""
    found = takewhile(Path.exists, files(folder, n))
    return torch.cat([torch.empty(0), *map(torch.load, found)]).byte()
