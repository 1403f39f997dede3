"""A folder of diffusers: a UNet2DModel and, if it is a pipeline's, a scheduler."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion.common.files import folder_aside
from diffusion.common.weights import read, tensors
from diffusion.interop.diffusers import scheduler, unet_weights
from diffusion.interop.layout import check_groups
from diffusion.interop.presets import Model, of

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
VERSION = "0.35.0"  # of diffusers, whose options are written


def describe(folder: Path) -> Model:
    """Returns the model in a folder: with a process and a sampler if it has a scheduler.

    Raises:
        FileNotFoundError: If it has no config.json.
        ValueError: If something in it has no counterpart here.
    """
    unet = _unet(folder)
    network = unet_weights.network_settings(_json(unet / "config.json"))
    settings = {"network": of("UNet", **network)}
    places = (folder / "scheduler", folder, folder.parent / "scheduler")
    found = [x / "scheduler_config.json" for x in places if (x / "scheduler_config.json").is_file()]
    if found:
        settings |= scheduler.settings(_json(found[0]))
    model = Model({**settings, "optimizer": of("torch.optim.Adam", lr=1e-4)})
    with torch.device("meta"):
        check_groups(model.network(), network["groups"])
    return model


def weights(folder: Path) -> dict[str, Tensor]:
    """Returns the network's weights.

    Raises:
        FileNotFoundError: If there are none.
    """
    unet = _unet(folder)
    for name in WEIGHTS:
        if (unet / name).is_file():
            return unet_weights.modern(tensors(read(unet / name), unet / name))
    raise FileNotFoundError(f"weights: {unet}; expected {' or '.join(WEIGHTS)}, there is neither")


def write(
    folder: Path,
    unet: Mapping[str, Any],
    values: Mapping[str, Tensor],
    schedule: Mapping[str, Any],
    card: str,
) -> None:
    """Writes a pipeline's folder, whole or not at all.

    Raises:
        FileExistsError: If there is such a folder or file.
    """
    name = str(schedule["_class_name"])
    pipeline = {
        "_class_name": name.replace("Scheduler", "Pipeline"),
        "scheduler": ["diffusers", name],
        "unet": ["diffusers", "UNet2DModel"],
    }
    version = {"_diffusers_version": VERSION}
    with folder_aside(folder) as aside:
        for part in ("unet", "scheduler"):
            (aside / part).mkdir()
        _dump(aside / "model_index.json", {**pipeline, **version})
        _dump(aside / "unet" / "config.json", {**unet, **version})
        save_file(dict(values), aside / "unet" / WEIGHTS[0], metadata={"format": "pt"})
        _dump(aside / "scheduler" / "scheduler_config.json", {**schedule, **version})
        (aside / "README.md").write_text(card, encoding="utf-8")


def _unet(folder: Path) -> Path:
    for unet in (folder / "unet", folder):
        if (unet / "config.json").is_file():
            return unet
    raise FileNotFoundError(f"weights: {folder}; expected a folder of diffusers, with unet/config"
                            ".json or config.json")  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"weights: {path}; expected JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"weights: {path}; expected an object, it is {type(content).__name__}")
    return content


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
