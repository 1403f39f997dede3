"""What the benchmarks share: measure ways of sampling, keep the rows in a CSV, draw them."""

import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from diffusion.common.files import written_aside
from diffusion.common.pixels import quantize
from diffusion.common.progress import bar
from diffusion.data import Images
from diffusion.metrics import (
    Extractor,
    FrechetDistance,
    KernelDistance,
    LabelAccuracy,
    LeNet,
    Measure,
    SampleBatch,
)
from diffusion.metrics.base import Figure as Found
from diffusion.metrics.evaluations import Evaluations, evaluation_figures
from diffusion.plots import pictures
from diffusion.sampler import Sampler
from diffusion.systems.diffusion import Diffusion

Row = dict[str, float | str]
Split = Literal["train", "test", "pairs"]
SPLITS: dict[Split, str] = {"train": "seen concepts", "test": "unseen concepts"}
WITH_PAIRS: dict[Split, str] = {**SPLITS, "pairs": "unseen pairs"}
BASELINES = ("ceiling", "floor")  # how the figure of held-out real images ends


class Bench:
    """A data set, an extractor, and how one way of sampling is measured.

    Args:
        data: The data module.
        n: Images per row.
        batch_size: Images at once.
        cache: Folder for the trained extractor and features of real images.
        extractor: Whose features are compared; LeNet by default.
        more: What is measured besides distances and label accuracy.

    Attributes:
        measures: What is measured.
    """

    def __init__(
        self,
        data: Images,
        n: int,
        batch_size: int,
        cache: Path,
        extractor: Extractor | None = None,
        more: Sequence[Measure] = (),
    ) -> None:
        self.data, self.n, self.batch_size, self.cache = data, n, batch_size, cache
        self.extractor = LeNet() if extractor is None else extractor
        first = (FrechetDistance, KernelDistance, LabelAccuracy)
        self.measures: list[Measure] = []
        self.add(*(measure(self.extractor) for measure in first), *more)

    def add(self, *measures: Measure) -> None:
        """Measures more, once it is prepared."""
        for measure in measures:
            measure.prepare(self.data, self.cache)
            self.measures.append(measure)

    def figures(self, batches: Iterable[SampleBatch]) -> dict[str, float]:
        """Returns the figures of all samples by name."""
        for measure in self.measures:
            measure.reset()
        for batch in batches:
            for measure in self.measures:
                measure.update(batch)
        return {name: x.value for m in self.measures for name, x in m.figures().items()}

    def __call__(self, model: Diffusion, sampler: Sampler, what: str) -> Row:
        """Returns the figures of n samples; sample i has noise i and what the data requests."""
        model.sampler = sampler
        drawn, seconds, counter = list[SampleBatch](), 0.0, Evaluations()
        with bar("images") as progress, counter.counting(model.denoiser.network):
            task = progress.add_task(what, total=self.n)
            for part in torch.arange(self.n).split(self.batch_size):
                start = time.perf_counter()
                request = self.data.request(part.tolist())
                request = move_data_to_device(request, model.device)
                images = quantize(model.generate(request, part.tolist())).cpu()
                drawn.append(SampleBatch(images, part, request.get("label"), request.get("text")))
                seconds += time.perf_counter() - start
                progress.advance(task, len(part))
        costs = evaluation_figures({"nfe": counter.rows / self.n}, seconds / self.n)
        figures = self.figures(drawn) | {name: x.value for name, x in costs.items()}
        return {name.split("@")[0]: round(value, 5) for name, value in figures.items()}


def measured(measures: Iterable[Measure], samples: SampleBatch) -> dict[str, Found]:
    """Returns the figures of samples by their names without n, and prints what is to be said."""
    found = dict[str, Found]()
    for measure in measures:
        measure.reset()
        measure.update(samples)
        found |= {name.split("@")[0]: figure for name, figure in measure.figures().items()}
        if measure.warnings:
            print(*measure.warnings)
    return found


def fill(path: Path, rows: Iterable[tuple[Row, Callable[[], Row]]]) -> list[dict[str, str]]:
    """Measures the rows that the CSV does not have yet, writing after each; returns all of them."""
    done = list(csv.DictReader(path.open())) if path.exists() else []
    for key, run in rows:
        if any(all(row[k] == str(v) for k, v in key.items()) for row in done):
            continue
        done.append({k: str(v) for k, v in (key | run()).items()})
        write(path, done)
    return done


def write(path: Path, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Writes a CSV whose columns are those of all rows."""
    with written_aside(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)))
        writer.writeheader()
        writer.writerows(rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_doc(path: Path, name: str, text: str) -> None:
    """Replaces what stands between <!-- name --> and <!-- /name --> of a page.

    Raises:
        ValueError: If the page has no such place.
    """
    before, start, rest = path.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise ValueError(f"{path}: no place {name}; expected <!-- {name} --> and <!-- /{name} -->")
    with written_aside(path) as aside:
        aside.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")


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
