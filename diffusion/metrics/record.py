"""What stays of a measurement: metrics.json, and a table on the screen."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusion.files import kept

if TYPE_CHECKING:
    from rich.table import Table


def hardware(device: torch.device) -> dict[str, Any]:
    """Returns what the images were generated on, without which a time says nothing."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes the record as JSON; a file that is there is first renamed after its time.

    Args:
        path: The file; see `kept`.
        record: What JSON can hold.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n"
    with kept(path) as part:
        part.write_text(text, encoding="utf-8")


def plain(part: Any) -> str:
    """Returns an object as its class and plain settings, such as "DDIM(eta=0.0)".

    Args:
        part: A step, a guidance or the like, whose public attributes are its settings.
    """
    kinds = (bool, int, float, str, list, tuple)
    public = {k: v for k, v in vars(part).items() if not k.startswith("_")}
    settings = ", ".join(f"{k}={v}" for k, v in public.items() if isinstance(v, kinds))
    return f"{type(part).__name__}({settings})" if settings else type(part).__name__


def table(figures: Mapping[str, float]) -> "Table":
    """Returns the figures as a table to print."""
    from rich.table import Table

    out = Table("metric", title="generated images")
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
