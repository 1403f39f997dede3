"""What the benchmarks share: measure ways of sampling, keep the rows in a CSV, draw them."""

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from diffusion.common.files import written_aside
from diffusion.common.progress import bar
from diffusion.data import Images
from diffusion.metrics import Extractor, LeNet, TextMeasure, quantize
from diffusion.metrics.evaluations import Evaluations
from diffusion.metrics.generated import Generated
from diffusion.metrics.suite import Measure
from diffusion.plots import pictures
from diffusion.sampler import Sampler
from diffusion.systems.diffusion import Diffusion

Row = dict[str, float | str]
BASELINES = ("ceiling", "floor")  # how the figure of held-out real images ends


class Bench:
    """A data set, an extractor, and how one way of sampling is measured.

    Args:
        data: The data module.
        n: Images per row.
        batch_size: Images at once.
        cache: Folder for the trained extractor and features of real images.
        extractor: Whose features are compared; LeNet by default.
        text: What is measured of captions.

    Attributes:
        measure: What is measured; with a `Card` also precision, recall, density and coverage.
    """

    def __init__(
        self,
        data: Images,
        n: int,
        batch_size: int,
        cache: Path,
        extractor: Extractor | None = None,
        text: TextMeasure | None = None,
    ) -> None:
        self.data, self.n, self.batch_size = data, n, batch_size
        self.extractor = LeNet() if extractor is None else extractor
        self.measure = Measure(cache, None, False, text=text)
        self.extractor.prepare(data, cache)

    def __call__(self, model: Diffusion, sampler: Sampler, what: str) -> Row:
        """Returns the figures of n samples; sample i has noise i and what the data requests."""
        model.sampler = sampler
        images, seconds, counter = [], 0.0, Evaluations()
        asked = self.data.request(range(self.n))
        with bar("images") as progress, counter.counting(model.denoiser.network):
            task = progress.add_task(what, total=self.n)
            for part in torch.arange(self.n).split(self.batch_size):
                start = time.perf_counter()
                request = self.data.request(part.tolist())
                request = move_data_to_device(request, model.device)
                x = model.generate(request, part.tolist())
                images.append(quantize(x).cpu())
                seconds += time.perf_counter() - start
                progress.advance(task, len(part))
        features, logits = zip(*(self.extractor(x) for x in images))
        made = Generated(
            torch.cat(images),
            asked.get("label"),
            torch.cat(features),
            torch.cat(logits),
            seconds / self.n,
            {"nfe": counter.rows / self.n},
            asked.get("text"),
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
        with written_aside(path) as aside, aside.open("w", newline="") as file:
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
    """Draws a panel for each y against x, with a curve for each value of `by`.

    Args:
        path: The picture.
        rows: Those without a y are not in its panel.
        x: What is drawn to the right.
        ys: What is drawn upwards, a panel each.
        by: What tells the curves apart.
        log: Whether x is logarithmic.
    """
    groups = list(dict.fromkeys(row[by] if by else "" for row in rows))
    width = 3.4 * len(ys) + (2.4 if by else 0.4)
    figure = Figure(figsize=(width, 3.2), dpi=110, layout="constrained")
    shown: dict[str, Line2D] = {}
    for ax, y in zip(figure.subplots(1, len(ys), squeeze=False)[0], ys):
        for i, group in enumerate(groups):
            mine = [row for row in rows if y in row and (not by or row[by] == group)]
            points = sorted((float(row[x]), float(row[y])) for row in mine)
            if points:
                name = group or "model"
                shown[name] = ax.plot(*zip(*points), "o-", color=f"C{i}", label=name)[0]
        floors = [
            float(row[f"{y}_{end}"]) for row in rows for end in BASELINES if f"{y}_{end}" in row
        ]
        if floors:
            shown["held-out images"] = ax.axhline(
                floors[0], color="grey", ls=":", label="held-out images"
            )
        ax.set(xlabel=x.replace("_", " "), title=y)
        if log:
            logarithmic(ax, "x")
        if y.startswith("fd"):
            logarithmic(ax, "y")
    beside: Any = "outside right"  # which matplotlib's annotations do not know
    figure.legend(handles=[*shown.values()], title=by or None, fontsize=8, loc=beside)
    figure.savefig(path)


def logarithmic(ax: Axes, which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with 1, 2, 5, 10, 20 … written out."""
    ax.set_xscale("log") if which == "x" else ax.set_yscale("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def ways(
    bench: Bench, model: Diffusion, keys: Sequence[Row], make: Callable[[Row], Sampler]
) -> list[tuple[Row, Callable[[], Row]]]:
    """Returns what `fill` takes, for one model and several samplers."""

    def run(key: Row) -> Callable[[], Row]:
        what = ", ".join(f"{k} {v}" for k, v in key.items())
        return lambda: bench(model, make(key), what)

    return [(key, run(key)) for key in keys]


def grid(path: Path, model: Diffusion, samplers: Sequence[Sampler]) -> None:
    """Draws a row a sampler, all from the same noise, one column a class."""
    rows = []
    for sampler in samplers:
        model.sampler = sampler
        rows.append(model.generate({"label": torch.arange(10)}, range(10)))
    pictures.save(pictures.grid(torch.cat(rows), 10), path)
