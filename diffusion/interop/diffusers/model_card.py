"""The model card of an exported folder: how to sample from it, what was measured, the licence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CALLS = {
    "DDIMScheduler": "pipeline(num_inference_steps={steps}, eta=0.0{clipped})",
    "DDPMScheduler": "pipeline(num_inference_steps={steps})",
}
LABELLED = """Its network wants a label, which the pipeline does not hand on. With one:

```python
import torch

unet, scheduler = pipeline.unet, pipeline.scheduler
x = torch.randn(4, unet.config.in_channels, {height}, {width})
labels = torch.tensor([0, 1, 2, 3])
scheduler.set_timesteps({steps})
with torch.no_grad():
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x{options}).prev_sample
```
"""


def figures(checkpoint: Path) -> dict[str, Any] | None:
    """Returns the record of the last test of a checkpoint's run, if there is one.

    A run's folder holds metrics.json, and its checkpoints in a folder.
    """
    for run in (checkpoint.absolute().parent, checkpoint.absolute().parent.parent):
        file = run / "metrics.json"
        if file.is_file():
            return _record(file)
    return None


def _record(file: Path) -> dict[str, Any]:
    """Returns what metrics.json holds.

    Raises:
        ValueError: If it is something else.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        record = None
    found = record.get("figures") if isinstance(record, dict) else None
    if not isinstance(found, dict) or not all(isinstance(v, int | float) for v in found.values()):
        raise ValueError(f"{file}; expected the record of a test, with its figures")
    return record  # pyright: ignore[reportReturnType]


def text(
    name: str,
    unet: Mapping[str, Any],
    schedule: Mapping[str, Any],
    steps: int,
    license: str,
    record: Mapping[str, Any] | None,
) -> str:
    """Returns README.md.

    Args:
        name: Of the folder.
        unet: The network's config.json.
        schedule: The scheduler's.
        steps: Of the sampler.
        license: Of the weights.
        record: What metrics.json holds, if a test was made.
    """
    kind = str(schedule["_class_name"])
    # Where x̂_0 is clipped, ε̂ has to follow it; DDIMScheduler does so only when asked to.
    kept = schedule.get("clip_sample") or schedule.get("thresholding")
    clipped = ", use_clipped_model_output=True" if kept else ""
    size, labelled = unet["sample_size"], unet["num_class_embeds"]
    height, width = (size, size) if isinstance(size, int) else size
    pipeline = kind.replace("Scheduler", "Pipeline")
    lines = [
        "---",
        f"license: {license}",
        "library_name: diffusers",
        "tags: [diffusion, unconditional-image-generation]",
        "---",
        "",
        f"# {name}",
        "",
        f"A diffusion model of {width} x {height} images with {unet['in_channels']} channels, with "
        "averaged weights.",
        "",
        "```python",
        f"from diffusers import {pipeline}",
        "",
        f'pipeline = {pipeline}.from_pretrained("{name}")',
        *([] if labelled else [CALLS[kind].format(steps=steps, clipped=clipped)]),
        "```",
        "",
    ]
    if labelled:
        options = f", eta=0.0{clipped}" if kind == "DDIMScheduler" else ""
        lines.append(LABELLED.format(steps=steps, options=options, height=height, width=width))
    return "\n".join([*lines, "## Figures", "", *_measured(record), "", "## Licence", "",
                      _licence(license), ""])  # fmt: skip


def _measured(record: Mapping[str, Any] | None) -> list[str]:
    """Returns the table of figures, and what they depend on."""
    if record is None:
        return ["None were measured."]
    rows = [f"| {key} | {value:.4g} |" for key, value in record.get("figures", {}).items()]
    about = {key: record.get(key) for key in ("n", "data", "reference", "extractor", "sampler")}
    notes = [f"- {k}: `{json.dumps(v, ensure_ascii=False)}`" for k, v in about.items() if v]
    return ["| figure | value |", "|---|---|", *rows, "", "They depend on:", "", *notes]


def _licence(license: str) -> str:
    if license == "unknown":
        return "Not stated. The licences of the data and of published weights apply to them."
    return f"{license}, as whoever exported the weights states it."
