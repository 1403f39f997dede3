"""What training costs at any size, and what 8 and 64 GPUs would make of it: docs/scaling.md.

`python benchmarks/scaling.py [--part models | cpu] [--only NAME …]` counts models (nothing is
computed: see scaling_counts.py), predicts rates of H100s, and compares predictions with what a core
of this machine does. It writes docs/results/scaling*.csv, and the tables of docs/scaling.md from
them.
"""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import scaling_check
from bench import Row, in_doc, markdown, write
from scaling_counts import BATCHES, Counted, count
from scaling_rates import ETHERNET, H100, NETWORK, rate

DOC, RESULTS = Path("docs/scaling.md"), Path("docs/results")
CONFIGS = ("ddpm_cifar10", "glide_emoji", "glide_emoji_upsampler", "adm_imagenet64")
MODELS = (*CONFIGS, "GLIDE", "adm_imagenet256")
CARDS = [(1, NETWORK, ""), (8, NETWORK, "")]  # how many, bytes/s and name of the network
CARDS += [(64, NETWORK, "8 x 400 Gb/s"), (64, ETHERNET, "100 Gb/s")]


def sizes(name: str, counted: Counted) -> Row:
    """Returns the row of a model that says what it costs."""
    row: Row = {"model": name, "size": counted.size, "parameters": counted.parameters}
    row |= {"parameters_without_text": counted.visual}
    row |= {"flops_forward": counted.flops(False, False), "flops_step": counted.flops(False, True)}
    row |= {"flops_step_checkpointed": counted.flops(True, True)}
    for bf16 in (False, True):
        for again in (False, True):
            key = ("bf16" if bf16 else "float32") + ("_checkpointed" if again else "")
            row[f"saved_{key}"] = round(counted.per_picture(bf16, again))
            if bf16:
                row[f"peak_{key}"] = round(counted.per_picture(True, again, peak=True))
    row["traffic"] = round(counted.traffic())
    row |= {"operators": len(counted.costs[True, False][0].step), "data_bytes": counted.inputs}
    return row | {"state_bytes": 16 * counted.parameters, "gradients": 4 * counted.parameters}


def cards(name: str, counted: Counted) -> list[Row]:
    """Returns the rows of a model that say what cards would do.

    The batch is that of the configuration, shared out, or as much on each card.
    """
    rows = list[Row]()
    for number, node, network in CARDS:
        for each in dict.fromkeys((counted.batch // number, counted.batch)):
            row: Row = {"model": name, "cards": number, "network": network, "batch": each * number}
            found, alone = rate(counted, each, number, node), rate(counted, each * number)
            if each == 0 or found is None or alone is None:
                rows.append(row | {"micro_batch": "does not fit" if each else "too few pictures"})
                continue
            images = each * number / found.seconds
            used = images * counted.flops(False, True) / (number * H100.flops)
            sent = 2 * (number - 1) / number * 4 * counted.parameters
            rows.append(
                row
                | {"micro_batch": found.part, "checkpointing": "yes" if found.again else "no"}
                | {"seconds": f"{found.seconds:.3g}", "images/s": f"{images:.3g}"}
                | {"efficiency": f"{alone.seconds / number / found.seconds:.2f}"}
                | {"MFU": f"{used:.2f}", "sent, MB a card": f"{sent / 1e6:.4g}"}
                | {"data, MB/s": f"{images * counted.inputs / 1e6:.3g}"}
            )
    return rows


def replaced(path: Path, name: str, rows: list[Row]) -> None:
    """Writes the rows of a model in the place of those that there are, models in their order."""
    kept = list(csv.DictReader(path.open())) if path.exists() else []
    every = [*(row for row in kept if row["model"] != name), *rows]
    write(path, sorted(every, key=lambda row: MODELS.index(str(row["model"]))))


def megabytes(row: Mapping[str, str], key: str) -> str:
    """Returns what a picture leaves for the backward pass."""
    return f"{float(row[f'saved_{key}']) / 1e6:,.1f}"


def linked(name: str) -> str:
    """Returns a model's name with its configuration."""
    return name if name in BATCHES else f"[{name}](../configs/{name}.yaml)"


def show(page: Path, results: Path) -> None:
    """Writes the tables of the page from those of the files that are there."""

    def rows(name: str) -> list[dict[str, str]]:
        path = results / f"scaling{name}.csv"
        return list(csv.DictReader(path.open())) if path.exists() else []

    costs, state = list[list[str]](), list[list[str]]()
    for row in rows(""):
        total, visual = (float(row[f"parameters{k}"]) / 1e6 for k in ("", "_without_text"))
        size = f"{total:,.1f} M" + (f", {visual:,.1f} M without text" if total > visual else "")
        line = [linked(row["model"]), f"{row['size']}²", size]
        for key in ("forward", "step", "step_checkpointed"):
            line.append(f"{float(row[f'flops_{key}']) / 1e9:,.2f}")
        costs.append([*line, row["operators"]])
        line = [row["model"], megabytes(row, "float32"), megabytes(row, "float32_checkpointed")]
        for key in ("bf16", "bf16_checkpointed"):
            line.append(f"{megabytes(row, key)} / {float(row[f'peak_{key}']) / 1e6:,.1f}")
        line += [f"{float(row[k]) / 1e9:,.3f}" for k in ("traffic", "state_bytes", "gradients")]
        state.append([*line, f"{int(row['data_bytes']):,}"])
    head = ["model", "pictures", "parameters", "forward", "step", "step, checkpointed", "operators"]
    in_doc(page, "costs", markdown(head, costs))
    head = ["model", "float32", "float32, checkpointed", "bf16", "bf16, checkpointed"]
    head += [
        "read and written: GB",
        "weights, moments, average: GB",
        "gradients: GB",
        "data: bytes a picture",
    ]
    in_doc(page, "memory", markdown(head, state))
    for name in ("cards", "cpu", "h100", "passes"):
        found = rows(f"_{name}")
        lines = [[row[k] or "–" for k in row] for row in found]
        names = [k.replace("_", " ") for k in found[0]] if found else ["not measured yet"]
        in_doc(page, name, markdown(names, lines))


def main() -> None:
    """Counts, predicts, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["models", "cpu", "h100", "tables"])
    parser.add_argument("--only", nargs="+", choices=MODELS, default=[*MODELS], metavar="NAME")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.part in (None, "models"):
        for name in args.only:
            counted = count(name)
            replaced(RESULTS / "scaling.csv", name, [sizes(name, counted)])
            replaced(RESULTS / "scaling_cards.csv", name, cards(name, counted))
    if args.part in (None, "h100"):
        write(RESULTS / "scaling_h100.csv", scaling_check.h100())
        write(RESULTS / "scaling_passes.csv", scaling_check.passes(RESULTS / "gpu.csv"))
    if args.part in (None, "cpu"):
        write(RESULTS / "scaling_cpu.csv", scaling_check.one_core(args.repeats))
    show(DOC, RESULTS)


if __name__ == "__main__":
    main()
