"""`diffusion interval`: the times at which classifier-free guidance is worth its second pass."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich import get_console
from rich.table import Table

from diffusion.cli.checkpoint_config import run_of
from diffusion.cli.choosing.bounds import Interval, Tried, chosen, cut, search
from diffusion.cli.choosing.jackknife import Jackknife, error
from diffusion.cli.choosing.parts import LOSS, Parts
from diffusion.common.files import kept, written_aside
from diffusion.common.progress import bar
from diffusion.guidance import ClassifierFree
from diffusion.metrics.features.lenet import LeNet
from diffusion.plots.pictures import ends
from diffusion.systems.diffusion import Diffusion

OBEDIENCE = ("label_accuracy@", "clip_r1@")
NOWHERE = (0, 0)  # times begin at 1


def interval(
    *,
    ckpt_path: str,
    output: str | None = None,
    pieces: int = 6,
    obedience: float | None = None,
    n: int | None = None,
    steps: int | None = None,
    config: list[str] | None = None,
    trust: bool = False,
) -> None:
    """Finds the times at which classifier-free guidance helps, and writes them as a configuration.

    Elsewhere it costs a second pass for nothing, or does harm (Kynkäänniemi et al. 2024). The
    sampler's steps are cut into pieces. First the noisy end of the interval is moved, then the
    other one, and each is measured as `diffusion test` would: by the first Fréchet distance or FID
    of `metrics`, by how many samples show what was asked for, and by the evaluations of the
    network; all with the same noise and requests, against training images. Of the intervals that
    obey like the whole, it takes the cheapest that is no further off than the best by more than
    the standard error of their difference. The scale stays what it is. interval.csv and
    interval.png in the run's folder have all figures.

    Args:
        ckpt_path: The checkpoint, such as runs/mine/checkpoints/last.ckpt.
        output: The configuration to write, which must not exist; by default interval.yaml in the
            run's folder.
        pieces: Between how many pieces of equally many steps the bounds may lie.
        obedience: The least share of samples that must show what was asked for, 0 … 1; by default
            what guidance everywhere gets, less its standard error.
        n: Images of a measurement; by default that of `metrics`.
        steps: Of the sampler; by default its own.
        config: One over the checkpoint's own, for its guidance, metrics or data. It may be
            repeated, later ones win.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    path, run = Path(ckpt_path), run_of(Path(ckpt_path))
    target = Path(output) if output else run / "interval.yaml"
    if target.exists():
        raise FileExistsError(f"output: {target} exists; expected the name of a new file")
    flags = [f"--config={file}" for file in config or []] + ["--trust"] * trust
    flags += [f"--metrics.n={n}"] * (n is not None)
    flags += [f"--model.sampler.steps={steps}"] * (steps is not None)
    parts = Parts(ckpt_path, [*flags, "--trainer.limit_val_batches=1"])
    found = MeasuredInterval(parts, path)
    times = found.model.sampler.times(found.model.process)
    grid = cut(times, found.model.process.T, pieces)
    with bar("intervals", keep=True) as progress:
        task = progress.add_task("Measuring", total=2 * len(grid))

        def measure(where: Interval) -> Tried:
            tried = found(where)
            progress.update(task, advance=1, note=f"{parts.figure} {tried.distance:.4g}")
            return tried

        without = measure(NOWHERE)
        tried = search(grid, measure, obedience)
        progress.update(task, total=len(tried) + 1)
    choice = chosen(tried, obedience)
    about = found.about()
    write_table([*tried, without], choice, found.names, run / "interval.csv")
    draw([*tried, without], choice, found.names, run / "interval.png")
    with written_aside(target) as part:
        part.write_text(overlay(parts, found.place, choice, about, path), encoding="utf-8")
    console = get_console()
    console.print(table([*tried, without], choice, found.names, about))
    share = choice.nfe / tried[0].nfe
    console.print(
        f"interval {list(choice.interval)}: {parts.figure} {choice.distance:.4g}, guidance "
        f"everywhere {tried[0].distance:.4g}; {share:.0%} of its evaluations"
    )
    if chosen([*tried, without], obedience) is without:
        console.print("without guidance it is as good by these figures, and cheaper")
    console.print(f"wrote {target}, {run / 'interval.csv'} and interval.png", soft_wrap=True)


class MeasuredInterval:
    """Draws and measures with an interval of guidance, always with the same noise and requests.

    Args:
        parts: The model, its data and metrics.
        path: The checkpoint.

    Attributes:
        model: What is guided.
        place: Which of its guidances has the interval.
        names: The figures: distance, and obedience or None.

    Raises:
        ValueError: If there is nothing to guide, or nothing to measure by.
    """

    def __init__(self, parts: Parts, path: Path) -> None:
        model, metrics = parts.model, parts.metrics
        if not isinstance(model, Diffusion):
            raise ValueError(
                f"ckpt_path: {path}; expected a Diffusion, this is a {type(model).__name__} (each "
                "stage of a Cascade is a checkpoint of its own)"
            )
        guides = list(enumerate(model.sampler.guidance))
        free = [(i, x) for i, x in guides if isinstance(x, ClassifierFree) and x.scale != 1]
        if not free or not model.denoiser.contract.null:
            why = "the sampler has no guidance" if not free else "the network has no ∅"
            raise ValueError(
                f"guidance: {why}; expected ClassifierFree with a scale other than 1, such as "
                "--config configs/sample/guided.yaml, of a model with conditions"
            )
        self.place, self.guide = free[0]
        if metrics.extractor is None:
            if not parts.datamodule.num_classes:
                raise ValueError("metrics.extractor: none; expected one, such as EfficientNet")
            metrics.extractor = LeNet()
        metrics.card, metrics.memorization, metrics.judge = None, False, False
        self.jackknife = Jackknife(metrics.extractor)
        metrics.measures = [*metrics.measures, self.jackknife]
        self.parts, self.model, self.weights = parts, model, path
        self.names: tuple[str, str | None] = (LOSS, None)

    def __call__(self, where: Interval) -> Tried:
        """Returns the figures."""
        self.guide.interval, parts = where, self.parts
        distance = parts.measured(self.weights if self.names[0] == LOSS else None)
        figures = parts.metrics.figures
        obeys = next((name for name in figures if name.startswith(OBEDIENCE)), None)
        self.names = parts.figure, obeys
        share = None if obeys is None else figures[obeys]
        return Tried(
            where, distance, self.jackknife.distances, figures["nfe"], share, parts.metrics.n
        )

    def about(self) -> str:
        """Returns what the figures depend on."""
        sampler, step = self.model.sampler, type(self.model.sampler.step).__name__
        rule, data = self.jackknife.extractor.reference, self.parts.datamodule
        return (
            f"n = {self.parts.metrics.n}, against {len(self.jackknife.reference)} training images "
            f"({rule}) of {type(data).__name__}; {step}, {self.model.moments - 1} steps, "
            f"{sampler.spacing}; scale {self.guide.scale:g}"
        )


def overlay(parts: Parts, place: int, choice: Tried, about: str, path: Path) -> str:
    """Returns the configuration, which replaces the list of guidances."""
    sampler = parts.config_dump["model"]["init_args"]["sampler"]
    guidance = sampler["init_args"]["guidance"]
    guidance[place]["init_args"]["interval"] = list(choice.interval)
    content = {"model": {"sampler": {"guidance": guidance}}}
    head = (
        f"# The interval of guidance that `diffusion interval` chose for {path}.\n"
        f"# {parts.figure} {choice.distance:.4g}, which it was chosen by; {about}.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def write_table(
    tried: Sequence[Tried], choice: Tried, names: tuple[str, str | None], path: Path
) -> None:
    """Writes all figures; the whole is the first row."""
    rows: list[Mapping[str, Any]] = [
        {
            "first": x.interval[0],
            "last": x.interval[1],
            names[0]: x.distance,
            "error": error(x.without, tried[0].without),
            names[1] or "obedience": x.obeys,
            "nfe": x.nfe,
            "chosen": int(x is choice),
        }
        for x in tried
    ]
    with kept(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(
    tried: Sequence[Tried], choice: Tried, names: tuple[str, str | None], about: str
) -> Table:
    """Returns all figures, to print."""
    out = Table("times", title="intervals of guidance", caption=about, caption_justify="left")
    for name in (names[0], "± against everywhere", names[1] or "obedience", "nfe", ""):
        out.add_column(name, justify="right", overflow="fold")
    for x in tried:
        where = "nowhere" if x.interval == NOWHERE else f"{x.interval[0]} … {x.interval[1]}"
        noise = f"{error(x.without, tried[0].without):.2g}"
        obeys = "–" if x.obeys is None else f"{x.obeys:.1%}"
        mark = "chosen" if x is choice else ""
        out.add_row(where, f"{x.distance:.4g}", noise, obeys, f"{x.nfe:g}", mark)
    return out


def draw(tried: Sequence[Tried], choice: Tried, names: tuple[str, str | None], path: Path) -> None:
    """Draws the figures against the bound that was moved."""
    whole, nowhere = tried[0], tried[-1]
    upper = [x for x in tried[:-1] if x.interval[0] == whole.interval[0]]
    last = tried[-2].interval[1]  # of the second sweep
    lower = [x for x in tried[:-1] if x.interval[1] == last]
    ways = {
        "the noisy end moved": [(x.interval[1], x) for x in upper],
        "the other end moved": [(x.interval[0], x) for x in lower],
    }
    curves = {
        name: [(t, x.distance, error(x.without, whole.without), x.obeys) for t, x in way]
        for name, way in ways.items()
        if len(way) > 1
    }
    lines = {"nowhere": (nowhere.distance, nowhere.obeys)}
    ends(curves, lines, choice.interval, names, path)
