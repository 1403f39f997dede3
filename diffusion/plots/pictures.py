"""Samples as pictures: grids of images, clouds of points, curves."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.common.files import kept, written_aside
from diffusion.common.pixels import rounded, text_chunks

SMALLEST = 32  # images are shown at least this wide, each pixel a square


def grid(images: Tensor, columns: int) -> Tensor:
    """Returns one uint8 picture (3, H, W) of images (B, C, H, W) in [−1, 1], row by row."""
    from torchvision.utils import make_grid

    zoom = math.ceil(SMALLEST / images.shape[-1])
    images = rounded(images.detach().cpu())
    images = images.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    return make_grid(images, nrow=columns, padding=2, pad_value=255)


def after_controls(controls: Sequence[Tensor], images: Tensor, columns: int) -> Tensor:
    """Returns rows that begin with what they are controlled by, (B / columns · m, 3, H, W).

    A row has m pictures: those of the controls, in [−1, 1], and `columns` images.

    Args:
        controls: (B / columns, c, H, W) each, in [0, 1]; of other than 3 channels the mean is seen.
        images: (B, C, H, W) in [−1, 1], C = 1 or 3.
        columns: Images of a row, a divisor of B.
    """
    seen = [2 * (x if x.shape[1] == 3 else x.mean(1, keepdim=True)) - 1 for x in controls]
    rows = [x.expand(-1, 3, -1, -1)[:, None] for x in seen]
    rows.append(images.expand(-1, 3, -1, -1).unflatten(0, (-1, columns)))
    return torch.cat(rows, 1).flatten(0, 1)


def save(picture: Tensor, path: Path, about: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes a uint8 picture (C, H, W), C = 1 or 3, as PNG.

    Args:
        picture: The pixels.
        path: The file.
        about: See `text_chunks`.
    """
    pixels = picture.cpu().permute(1, 2, 0).numpy().squeeze(2 if len(picture) == 1 else ())
    with written_aside(path, durable=False) as aside:
        Image.fromarray(pixels).save(aside, "PNG", pnginfo=text_chunks(about))


def clouds(points: Sequence[Tensor], titles: Sequence[str]) -> Tensor:
    """Returns one uint8 picture (3, H, W) of clouds of points (B, 2), side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * len(points), 2.75), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(points), squeeze=False)[0]
    for ax, cloud, title in zip(axes, points, titles):
        x, y = cloud.detach().float().cpu().T
        ax.scatter(x, y, s=2, alpha=0.5, linewidths=0)
        ax.set(title=title, xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
    canvas.draw()
    rgba = torch.from_numpy(np.array(canvas.buffer_rgba()))
    return rgba[..., :3].permute(2, 0, 1).contiguous()


def curve(logs: Sequence[Path], path: Path) -> bool:
    """Draws the losses of metrics.csv files against the images seen; False if there are none."""
    from matplotlib.figure import Figure

    rows = [row for log in logs for row in csv.DictReader(log.open())]
    images = {int(r["step"]): float(r["train/images"]) for r in rows if r.get("train/images")}
    last = max(images, default=0)
    each = images[last] / max(1, last) if images else 0.0
    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    ax = figure.subplots()
    for name in ("train/loss", *(f"train/loss_q{i}" for i in (1, 2, 3, 4)), "val/loss"):
        losses = {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
        if losses and images:  # validation is logged one step off the others
            points = sorted((images.get(step, step * each), y) for step, y in losses.items())
            ax.plot(*zip(*points), label=name, alpha=0.35 if "_q" in name else 1.0)
    if not ax.lines:
        return False
    ax.set(xlabel="images seen", ylabel="loss", yscale="log")
    ax.legend(fontsize=8)
    with written_aside(path) as aside:
        figure.savefig(aside)
    return True


def lengths(figures: Mapping[str, float], name: str, path: Path) -> None:
    """Draws a figure against the length of the average; other keys than numbers are lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), dpi=120, layout="constrained")
    ax = figure.subplots()
    points = {float(key): y for key, y in figures.items() if key[:1].isdigit()}
    ax.plot(*zip(*sorted(points.items())), "o-", markersize=4)
    for key in figures.keys() - {key for key in figures if key[:1].isdigit()}:
        ax.axhline(figures[key], linestyle=":", color="grey", label=f"the {key}'s own average")
    ax.set(xlabel="length of the average, σ_rel", ylabel=name, xscale="log")
    ax.legend(fontsize=8)
    with kept(path) as aside:
        figure.savefig(aside)


def ends(
    curves: Mapping[str, Sequence[tuple[float, float, float, float | None]]],
    lines: Mapping[str, tuple[float, float | None]],
    choice: tuple[int, int],
    names: tuple[str, str | None],
    path: Path,
) -> None:
    """Draws figures against the ends of an interval of guidance, one below the other.

    Args:
        curves: Points (t, first figure, its error, second figure) by what was moved.
        lines: Figures to compare with, by name.
        choice: The interval that was chosen, shaded.
        names: The figures' names; a second one that is None is not drawn.
        path: The file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5.2 if names[1] else 3.2), dpi=120, layout="constrained")
    for k, ax in enumerate(figure.subplots(2 if names[1] else 1, squeeze=False)[:, 0]):
        for name, points in curves.items():
            t, first, error, second = zip(*sorted(points))
            ax.errorbar(t, (first, second)[k], None if k else error, fmt="o-", ms=4, label=name)
        for name, values in lines.items():
            ax.axhline(values[k], linestyle=":", color="grey", label=name)
        ax.axvspan(*choice, alpha=0.12, label=f"chosen: {choice[0]} … {choice[1]}")
        ax.set(xlabel="t", ylabel=names[k])
    figure.axes[0].legend(fontsize=8)
    with kept(path) as aside:
        figure.savefig(aside)
