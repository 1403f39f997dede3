"""What stays of a measurement: metrics.json, and a table on the screen."""

import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusion.common.files import kept
from diffusion.metrics.base import Figure
from diffusion.metrics.features.base import Record

if TYPE_CHECKING:
    from rich.table import Table


def hardware(device: torch.device) -> Record:
    """Returns what the images were generated on, without which a time says nothing."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write_record(path: Path, record: Record) -> None:
    """Writes the record as JSON; a file that is there is first renamed after its time."""
    known = finite(json.loads(json.dumps(record, default=str)))
    text = json.dumps(known, indent=2, ensure_ascii=False, allow_nan=False)
    with kept(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def stored(figures: Mapping[str, Figure]) -> Record:
    """Returns the entries of a record that hold figures: "figures", numbers, and "meanings"."""
    usual = dataclasses.asdict(Figure(math.nan))
    meanings = {
        name: {k: v for k, v in dataclasses.asdict(figure).items() if v != usual[k]}
        for name, figure in figures.items()
    }
    return {
        "figures": {n: about.pop("value") for n, about in meanings.items()},
        "meanings": meanings,
    }


def recorded_figures(record: Record) -> dict[str, Figure]:
    """Returns the figures that a record holds by name; one without a meaning has its name."""
    meanings = record.get("meanings", {})
    return {
        name: Figure(value, **{"title": name, **meanings.get(name, {})})
        for name, value in record["figures"].items()
    }


def finite(value: Any) -> Any:
    """Returns a record without numbers that JSON has not: left out, or None in a list."""

    def known(x: object) -> bool:
        return not isinstance(x, float) or math.isfinite(x)

    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items() if known(v)}
    if isinstance(value, list | tuple):
        return [finite(v) if known(v) else None for v in value]
    return value


def plain(part: object) -> str:
    """Returns an object as its class and plain settings, such as "DDIM(eta=0.0)"."""
    kinds = (bool, int, float, str, list, tuple)
    public = {k: v for k, v in vars(part).items() if not k.startswith("_")}
    settings = ", ".join(f"{k}={v}" for k, v in public.items() if isinstance(v, kinds))
    return f"{type(part).__name__}({settings})" if settings else type(part).__name__


def notes(record: Record) -> list[str]:
    """Returns what the figures are worth, a line each: how good the judges are, and warnings."""
    judges = {"extractor": "accuracy", "judge": "test_accuracy"}
    known = {who: record.get(who) or {} for who in judges}
    found = [
        f"{about.get('name', who)} itself: right on {about[judges[who]]:.1%} of "
        f"{about['held_out']} held-out real images, a guess on {about['chance']:.1%}"
        for who, about in known.items()
        if "chance" in about
    ]
    return [*found, *(f"warning: {text}" for text in record.get("warnings", ()))]


def figures_table(figures: Mapping[str, float], notes: Sequence[str] = ()) -> "Table":
    """Returns the figures as a table to print."""
    from rich.markup import escape
    from rich.table import Table

    out = Table("metric", title="generated images", caption_justify="left")
    out.caption = escape("\n".join(notes)) or None
    out.add_column("value", justify="right")
    for name, value in figures.items():
        out.add_row(name, f"{value:.4g}")
    return out


def _processor() -> str:
    """Returns the processor's name; on Linux `platform` knows only its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
