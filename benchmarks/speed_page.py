"""What docs/benchmarks.md shows of the rows that speed.py measures: its tables and the plot."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import in_doc, markdown
from matplotlib.figure import Figure

PARTS = ("peers", "shell", "guidance")  # of speed.csv
HEAD = ["network", "what", "batch", "ms (quartiles)", "images/s", "ratio (quartiles)"]
GPU = ("gpu", "gpu_peers")  # of gpu.py, in docs/results
OTHERS = ("kernels", "profile", "memory")  # each of a file of its own


def number(value: str) -> str:
    """Returns seconds in milliseconds."""
    ms = 1000 * float(value)
    return f"{ms:.3g}" if ms < 1000 else f"{ms:,.0f}"


def compared_lines(rows: Sequence[Mapping[str, str]], part: str) -> list[list[str]]:
    """Returns the lines of a part's table under `HEAD`, those of peers with the share of peak."""
    lines = list[list[str]]()
    for row in [row for row in rows if row["part"] == part]:
        ms = f"{number(row['seconds'])} ({number(row['q25'])} … {number(row['q75'])})"
        ratio = f"{row['ratio']} ({row['ratio_q25']} … {row['ratio_q75']})"
        share = f"{100 * float(row['share_of_peak']):.0f} %" if row.get("share_of_peak") else "–"
        what = f"{row['what']}: {row['way']}"
        line = [row["network"], what, row["batch"], ms, row["images_per_second"], ratio]
        lines.append([*line, *([share] if part == "peers" else [])])
    return lines


def tables(rows: Sequence[Mapping[str, str]], page: Path, picture: Path) -> None:
    """Writes what the page shows of the rows."""
    in_doc(page, "machine", next(row["way"] for row in rows if row["part"] == "machine"))
    head = ["what", "GFLOP/s"]
    lines = [[row["way"], row["GFLOP_per_second"]] for row in rows if row["part"] == "peak"]
    in_doc(page, "peak", markdown(head, lines))
    for part in PARTS:
        lines = compared_lines(rows, part)
        whole = [*HEAD, "of the peak"] if part == "peers" else HEAD
        text = markdown(whole, lines) if lines else "Not measured yet."
        if lines and part == "peers":
            text += "\n\n![Ratios with their quartiles](results/speed.png)"
        in_doc(page, part, text)
    drawn = [row for row in rows if row["part"] in PARTS]
    if drawn:
        figure = Figure(figsize=(9, 0.22 * len(drawn) + 1), dpi=110, layout="constrained")
        ax = figure.subplots()
        names = [f"{row['network']}, {row['what']}: {row['way']}" for row in drawn][::-1]
        middle, low, high = (
            [float(row[key]) for row in drawn][::-1] for key in ("ratio", "ratio_q25", "ratio_q75")
        )
        spread = [[m - a for m, a in zip(middle, low)], [b - m for m, b in zip(middle, high)]]
        ax.barh(names, middle, xerr=spread, color="#7aa6c2")
        ax.axvline(1, color="black", lw=0.8)
        ax.set_xlabel("time over the time of the first way of the same table")
        ax.tick_params(labelsize=7)
        figure.savefig(picture)


def memory_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the peaks beside the first way's, and what checkpointing costs in time."""
    peaks = [row for row in rows if row["part"] == "memory"]
    same = ("network", "size", "batch")
    ours = {tuple(row[k] for k in same): row for row in peaks if row["way"] == "ours"}
    head = ["network", "pictures", "batch", "way", "training, MB", "ratio", "DDIM, MB", "ratio"]
    lines = list[list[str]]()
    for row in peaks:
        picture, first = f"{row['size']} × {row['size']}", ours[tuple(row[k] for k in same)]
        line = [row["network"], picture, row["batch"], row["way"]]
        for what in ("step", "draw"):
            ratio = float(row[what]) / float(first[what])
            line += [f"{float(row[what]):.0f}", f"{ratio:.2f}"]
        lines.append(line)
    times = [
        [row["way"], row["batch"], f"{row['ratio']} ({row['ratio_q25']} … {row['ratio_q75']})"]
        for row in rows
        if row["part"] == "checkpointing"
    ]
    head_times = ["way", "batch", "time of a training step, ratio (quartiles)"]
    return f"{markdown(head, lines)}\n\n{markdown(head_times, times)}"


def profile_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns whose the time of a step is, and what a start costs."""
    shares = [[r["way"], f"{100 * float(r['share']):.1f} %"] for r in rows if r["share"]]
    parts = markdown(["where", "processor time of a step"], shares)
    return f"{parts}\n\n{markdown(HEAD, compared_lines(rows, 'start'))}"


def gpu_tables(rates: Sequence[Mapping[str, str]], beside: Sequence[Mapping[str, str]]) -> str:
    """Returns the rates of steps on a card by precision, and the ratios to other packages."""
    head = ["precision", "compiled", "images/s", "peak, GiB", "TFLOP/s", "of a large product"]
    lines = list[list[str]]()
    for r in (row for row in rates if row["what"] == "step"):
        share = f"{100 * float(r['share_of_matmul_peak']):.1f} %"
        compiled = "yes" if r["compiled"] == "True" else "no"
        line = [r["precision"], compiled, r["images_per_second"], r["peak_GiB"], r["TFLOPs"]]
        lines.append([*line, share])
    ratios = list[list[str]]()
    for row in beside:
        ms = f"{number(row['seconds'])} ({number(row['q25'])} … {number(row['q75'])})"
        ratio = f"{row['ratio']} ({row['ratio_q25']} … {row['ratio_q75']})"
        what = f"{row['what']}: {row['way']}"
        precision = row["precision"] + (", compiled" if row["compiled"] == "True" else "")
        ratios.append([row["network"], precision, what, row["batch"], ms, ratio])
    head_ratios = ["network", "precision", "what", "batch", "ms (quartiles)", "ratio (quartiles)"]
    return f"{markdown(head, lines)}\n\n{markdown(head_ratios, ratios)}"


def show(to: Path) -> None:
    """Writes the page of the rows that there are."""
    page, found = to / "benchmarks.md", dict[str, list[dict[str, str]]]()
    for name in ("speed", *OTHERS, *GPU):
        if (path := to / f"results/{name}.csv").exists():
            with path.open() as file:
                found[name] = list(csv.DictReader(file))
    tables(found["speed"], page, to / "results/speed.png")
    if rows := found.get("kernels"):
        text = markdown(HEAD, compared_lines(rows, "kernels"))
        in_doc(page, "kernels", f"{rows[0]['way']}.\n\n{text}")
    if rows := found.get("profile"):
        in_doc(page, "profile", f"{rows[0]['way']}.\n\n{profile_table(rows)}")
    if rows := found.get("memory"):
        in_doc(page, "memory", memory_table(rows))
    if rows := found.get("gpu"):
        in_doc(page, "gpu", gpu_tables(rows, found.get("gpu_peers", [])))
