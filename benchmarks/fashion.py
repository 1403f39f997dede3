"""The tables and pictures of docs/results.md, from the run of configs/ddpm_fashion.yaml.

`python benchmarks/fashion.py --root DATA` (or `make tables`) after
`diffusion fit --config configs/ddpm_fashion.yaml --data.root DATA`. Writes CSV and PNG into
docs/results/. Rows that a CSV already has are not measured again, so that an interrupted call goes
on where it stopped; delete a CSV to measure anew.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from diffusion.data import FashionMNIST, Images
from diffusion.guidance import ClassifierFree, Static
from diffusion.metrics import LeNet, quantize
from diffusion.metrics.figures import Generated
from diffusion.metrics.measure import Measure
from diffusion.metrics.progress import bar
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.training import pictures
from diffusion.training.module import Diffusion

Row = dict[str, float | str]


class Bench:
    """A data set, an extractor, and how one way of sampling is measured.

    Args:
        data: The data module.
        n: Images per row.
        batch_size: Images at once.
        cache: Folder for the trained extractor and features of real images.
    """

    def __init__(self, data: Images, n: int, batch_size: int, cache: Path) -> None:
        self.data, self.n, self.batch_size = data, n, batch_size
        self.extractor, self.measure = LeNet(), Measure(cache, None, False)
        self.extractor.prepare(data, cache)

    def __call__(self, model: Diffusion, sampler: Sampler, what: str) -> Row:
        """Returns the figures of n samples; sample i has noise i and label i mod 10."""
        model.sampler = sampler
        images, seconds = [], 0.0
        labels = torch.arange(self.n) % 10
        with bar("images") as progress:
            task = progress.add_task(what, total=self.n)
            for part in torch.arange(self.n).split(self.batch_size):
                start = time.perf_counter()
                cond = model.condition({"label": labels[part].to(model.device)})
                x = model.generate(cond, self.data.shape, part.tolist())
                images.append(quantize(x).cpu())
                seconds += time.perf_counter() - start
                progress.advance(task, len(part))
        features, logits = zip(*(self.extractor(x) for x in images))
        made = Generated(
            torch.cat(images), labels, torch.cat(features), torch.cat(logits), seconds / self.n
        )
        figures = self.measure(made, self.data, self.extractor, torch.device("cpu"))
        return {name.split("@")[0]: round(value, 5) for name, value in figures.items()}


def fill(path: Path, rows: Iterable[tuple[Row, Callable[[], Row]]]) -> list[dict[str, str]]:
    """Measures the rows that the CSV does not have yet, writing after each; returns all of them."""
    done = list(csv.DictReader(path.open())) if path.exists() else []
    for key, run in rows:
        if any(all(row[k] == str(v) for k, v in key.items()) for row in done):
            continue
        done.append({k: str(v) for k, v in (key | run()).items()})
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, done[0])
            writer.writeheader()
            writer.writerows(done)
    return done


def plot(
    path: Path,
    rows: list[dict[str, str]],
    x: str,
    ys: Sequence[str],
    by: str = "",
    log: bool = True,
) -> None:
    """Draws a panel for each y against x, with a curve for each value of `by`."""
    figure = Figure(figsize=(4.2 * len(ys), 3.2), dpi=110, layout="constrained")
    for ax, y in zip(figure.subplots(1, len(ys), squeeze=False)[0], ys):
        for group in dict.fromkeys(row[by] if by else "" for row in rows):
            mine = [row for row in rows if not by or row[by] == group]
            name = f"{by} = {group}" if by else "model"
            ax.plot(*zip(*[(float(r[x]), float(r[y])) for r in mine]), "o-", label=name)
        if f"{y}_floor" in rows[0]:
            ax.axhline(float(rows[0][f"{y}_floor"]), color="grey", ls=":", label="held-out images")
        ax.set(xlabel=x.replace("_", " "), ylabel=y, xscale="log" if log else "linear")
        ax.set_yscale("log" if y.startswith("fd") else "linear")
        ax.legend(fontsize=8)
    figure.savefig(path)


def ways(
    bench: Bench, model: Diffusion, keys: Sequence[Row], make: Callable[[Row], Sampler]
) -> list[tuple[Row, Callable[[], Row]]]:
    """Returns what `fill` takes, for one model and several samplers."""

    def run(key: Row) -> Callable[[], Row]:
        what = ", ".join(f"{k} {v}" for k, v in key.items())
        return lambda: bench(model, make(key), what)

    return [(key, run(key)) for key in keys]


def grid(path: Path, model: Diffusion, samplers: Sequence[Sampler], shape: Sequence[int]) -> None:
    """Draws a row a sampler, all from the same noise, one column a class."""
    rows = []
    for sampler in samplers:
        model.sampler = sampler
        cond = model.condition({"label": torch.arange(10, device=model.device)})
        rows.append(model.generate(cond, shape, range(10)))
    pictures.save(pictures.grid(torch.cat(rows), 10), path)


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, default=Path("runs/ddpm_fashion"))
    parser.add_argument("--root", default="data", help="where Fashion-MNIST is")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(FashionMNIST(root=args.root), args.n, 250, Path(".cache"))

    def load(path: Path) -> Diffusion:
        return Diffusion.load_from_checkpoint(path, map_location=args.device)

    checkpoints = sorted((args.run / "checkpoints").glob("step_*.ckpt"))
    model, static = load(checkpoints[-1]), Static()
    images = 64  # a step, on one process

    def ddim(key: Row) -> Sampler:
        return Sampler(DDIM(float(key["eta"])), int(key["steps"]), [static])

    table: list[Row] = [{"eta": e, "steps": s} for s in (5, 10, 20, 50, 100, 200) for e in (0, 1)]
    rows = fill(args.out / "ddim.csv", ways(bench, model, table, ddim))
    plot(args.out / "ddim.png", rows, "steps", ["fd_lenet", "kid_lenet"], by="eta")
    few = [ddim({"eta": e, "steps": s}) for e in (0, 1) for s in (5, 10, 20, 50, 200)]
    grid(args.out / "ddim_samples.png", model, few, bench.data.shape)

    def guided(key: Row) -> Sampler:
        return Sampler(DDIM(), 25, [ClassifierFree(float(key["scale"])), static])

    scales: list[Row] = [{"scale": s} for s in (0, 0.5, 1, 1.5, 2, 3, 5, 8)]
    rows = fill(args.out / "guidance.csv", ways(bench, model, scales, guided))
    panels = ["fd_lenet", "kid_lenet", "label_accuracy"]
    plot(args.out / "guidance.png", rows, "scale", panels, log=False)
    grid(args.out / "guidance_samples.png", model, [guided(s) for s in scales], bench.data.shape)

    def at(path: Path) -> Callable[[], Row]:
        return lambda: bench(load(path), Sampler(DDIM(), 20, [static]), path.stem)

    steps = [(int(path.stem.split("_")[1]), path) for path in checkpoints]
    rows = fill(
        args.out / "curve.csv", [({"step": s, "images": s * images}, at(path)) for s, path in steps]
    )
    plot(args.out / "curve.png", rows, "images", ["fd_lenet", "kid_lenet"])


if __name__ == "__main__":
    main()
