"""What the last test of a checkpoint's run measured, for the card of an exported folder."""

import json
from pathlib import Path

from diffusion.common.files import json_object
from diffusion.interop.presets import Settings


def last_record(checkpoint: Path) -> Settings | None:
    """Returns the record of the last test of a checkpoint's run, if there is one.

    A run's folder holds metrics.json, and its checkpoints in a folder.

    Raises:
        ValueError: If metrics.json is something else.
    """
    for run in (checkpoint.absolute().parent, checkpoint.absolute().parent.parent):
        if not (file := run / "metrics.json").is_file():
            continue
        record = json_object(file, "ckpt")
        found = record.get("figures")
        if not isinstance(found, dict) or not all(
            isinstance(v, int | float) for v in found.values()
        ):
            raise ValueError(f"ckpt: {file}; expected the record of a test, with its figures")
        return record
    return None


def measured(record: Settings | None) -> str:
    """Returns the table of figures, and what they depend on."""
    if record is None:
        return "None were measured."
    rows = [f"| {key} | {value:.4g} |" for key, value in record["figures"].items()]
    about = {key: record.get(key) for key in ("n", "data", "reference", "extractor", "sampler")}
    notes = [f"- {k}: `{json.dumps(v, ensure_ascii=False)}`" for k, v in about.items() if v]
    return "\n".join(["| figure | value |", "|---|---|", *rows, "", "They depend on:", "", *notes])
