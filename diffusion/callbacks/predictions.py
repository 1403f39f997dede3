"""A folder of numbered samples: which there are, what made them, what they were asked to be."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.callbacks.generation import by_stage, digests, sampling, stages
from diffusion.callbacks.recipe import difference
from diffusion.common.files import written_aside
from diffusion.common.hashing import bytes_digest
from diffusion.data.requests.base import in_order
from diffusion.plots.captioned import class_name
from diffusion.spec import Batch

NUMBERED = re.compile(r"(\d{6,})(?:_(\d+))?\.(?:png|npy)")  # 000042_3.png: number and label
SETTINGS, CAPTIONS = "settings.json", "captions.json"
AT_ONCE = 500  # samples whose captions are asked for together


def numbered(folder: Path) -> dict[int, Path]:
    """Returns the samples in a folder by their numbers, in order; other files are passed over."""
    found = {path: NUMBERED.fullmatch(path.name) for path in folder.iterdir()}
    made = {int(match[1]): path for path, match in found.items() if match}
    return dict(sorted(made.items()))


def label_of(path: Path) -> int | None:
    """Returns the label in a sample's name, if there is one."""
    match = NUMBERED.fullmatch(path.name)
    return int(match[2]) if match and match[2] else None


def read_sample(path: Path) -> Tensor:
    """Returns a sample that was written, uint8 (C, H, W) or a point."""
    from torchvision.io import decode_image

    return torch.from_numpy(np.load(path)) if path.suffix == ".npy" else decode_image(str(path))


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses to go on in a folder whose samples were made otherwise.

    Raises:
        ValueError: If there are samples, and `settings.json` says something else or is not there.
    """
    if not numbered(folder):
        return
    if (there := _note(folder / SETTINGS)) is None:
        raise _refused(folder, f"it has samples, and no {SETTINGS} that says how they were made")
    if there.keys() != settings.keys():
        raise _refused(folder, f"{SETTINGS} there is of another version of this software")
    if changed := difference(there, settings):
        raise _refused(folder, f"{SETTINGS} there has {changed}")


def asked_captions(folder: Path, data: Any) -> dict[str, str]:
    """Returns the captions of all samples by their numbers, once it is known that none changes.

    Args:
        folder: Where samples may be, with labels in their names and texts in `captions.json`.
        data: With `samples`, how many there will be, and `request`.

    Raises:
        ValueError: If a sample that is there was asked to be something else than now.
    """
    made = numbered(folder)
    there: dict[str, str] = (_note(folder / CAPTIONS) if made else None) or {}
    now: dict[str, str] = {}
    for numbers in in_order(data.samples, AT_ONCE):
        batch = data.request(numbers)
        labels, texts = batch.get("label"), batch.get("text")
        for k, number in enumerate(numbers):
            name = f"{number:06d}"
            label = label_of(made[number]) if number in made else None
            if label is not None and (labels is None or label != int(labels[k])):
                wanted = "no label" if labels is None else f"label {int(labels[k])}"
                raise _refused(folder, f"{made[number].name} is there, now {wanted} is asked for")
            if texts is None:
                continue
            now[name] = texts[k]
            if number in made and there.get(name) != texts[k]:
                was, wanted = (
                    json.dumps(x, ensure_ascii=False) for x in (there.get(name), now[name])
                )
                raise _refused(folder, f"{CAPTIONS} there has {was} for {name}, now {wanted}")
    return {**there, **now}


def note(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a note as JSON."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with written_aside(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def append_texts(path: Path, numbers: Sequence[int], texts: Sequence[str]) -> None:
    """Appends a line {"index", "text"} for each sample to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for number, text in zip(numbers, texts):
            file.write(json.dumps({"index": number, "text": text}, ensure_ascii=False) + "\n")


def gather(made: Mapping[int, Path], path: Path) -> None:
    """Writes samples as one .npz, "images" (N, H, W, C), "index" and "labels", one at a time."""
    files = list(made.values())
    first = _as_saved(np.load(files[0]))
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (len(files), *first.shape),
    }
    more = {"index": np.array(list(made))}
    if label_of(files[0]) is not None:
        more["labels"] = np.array([label_of(file) for file in files])
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as out:
            np.lib.format.write_array_header_1_0(out, header)
            for file in files:
                out.write(_as_saved(np.load(file)).tobytes())
        for name, values in more.items():
            with archive.open(f"{name}.npy", "w") as out:
                np.lib.format.write_array(out, values, allow_pickle=False)


def _as_saved(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0) if image.ndim == 3 else image


def _note(path: Path) -> dict[str, Any] | None:
    """Returns what a note says, or None if there is none."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _refused(path.parent, f"{path.name} there cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise _refused(path.parent, f"{path.name} there is something else")
    return found


def _refused(folder: Path, why: str) -> ValueError:
    return ValueError(
        f"writer.folder: {folder}; {why}; expected an empty folder or the same settings"
    )


def origin_of(module: Any, weights: Sequence[str] | None = None) -> dict[str, str]:
    """Returns how pictures are made: seed, sampler and weights.

    Args:
        module: What draws.
        weights: Digests of the weights of its stages; by default of those in place.
    """
    return {
        "seed": str(stages(module)[0].get("seed")),
        "sampler": json.dumps(by_stage(module, sampling)),
        "weights": " ".join(weights or digests(module)),
    }


def stems(module: Any, batch: Batch) -> list[str]:
    """Returns the name of each picture's file, as `numbered` reads it, without its ending."""
    stems = [f"{number:06d}" for number in batch["index"].tolist()]
    if not module.reads_labels or "label" not in batch:
        return stems
    return [f"{stem}_{label}" for stem, label in zip(stems, batch["label"].tolist())]


def asked_for(module: Any, batch: Batch, data: Any) -> Iterator[dict[str, str]]:
    """Yields what each picture of a batch was asked to be: its number, label, prompt and controls.

    Args:
        module: What drew them.
        batch: The request.
        data: With `classes` and `controls`.
    """
    labels = batch["label"].tolist() if module.reads_labels and "label" in batch else None
    texts = batch.get("text") if module.reads_texts else None
    controls = {name: batch[name].cpu().numpy() for name in data.controls if name in batch}
    for k, number in enumerate(batch["index"].tolist()):
        about = {"index": str(number)}
        if labels is not None:
            about["label"] = class_name(data.classes, labels[k])
        if texts is not None:
            about["prompt"] = texts[k]
        about |= {f"control.{name}": bytes_digest(x[k].tobytes()) for name, x in controls.items()}
        yield about
