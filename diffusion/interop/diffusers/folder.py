"""A folder of diffusers: a UNet2DModel and, if it is a pipeline's, a scheduler."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from diffusion.common.files import folder_aside, json_object
from diffusion.common.weights import read, tensors
from diffusion.interop.diffusers.scheduler import sampling_settings
from diffusion.interop.diffusers.unet_weights import modern, network_settings
from diffusion.interop.layout import check_groups
from diffusion.interop.presets import Model, Settings, node

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
VERSION = "0.35.0"  # of diffusers, whose options are written


def read_folder(folder: Path) -> tuple[Model, dict[str, Tensor]]:
    """Returns a model, with a process and a sampler if there is a scheduler, and its weights.

    Raises:
        FileNotFoundError: If there is no config.json or no file of weights.
        ValueError: If something in it has no counterpart here.
    """
    unet = next((x for x in (folder / "unet", folder) if (x / "config.json").is_file()), None)
    if unet is None:
        raise FileNotFoundError(f"weights: {folder}; expected a folder of diffusers, with unet/"
                                "config.json or config.json")  # fmt: skip
    network = network_settings(json_object(unet / "config.json", "weights"))
    settings = {"network": node("UNet", **network)}
    for place in (folder / "scheduler", folder, folder.parent / "scheduler"):
        if (file := place / "scheduler_config.json").is_file():
            settings |= sampling_settings(json_object(file, "weights"))
            break
    model = Model({**settings, "optimizer": node("torch.optim.Adam", lr=1e-4)})
    check_groups(model.network("meta"), network["groups"])
    for name in WEIGHTS:
        if (unet / name).is_file():
            return model, modern(tensors(read(unet / name), unet / name))
    raise FileNotFoundError(f"weights: {unet}; expected {' or '.join(WEIGHTS)}, there is neither")


def write_folder(
    folder: Path, unet: Settings, weights: Mapping[str, Tensor], scheduler: Settings, card: str
) -> None:
    """Writes a pipeline's folder, whole or not at all.

    Raises:
        FileExistsError: If there is such a folder or file.
    """
    name = str(scheduler["_class_name"])
    index = {
        "_class_name": name.replace("Scheduler", "Pipeline"),
        "scheduler": ["diffusers", name],
        "unet": ["diffusers", "UNet2DModel"],
    }
    files = {
        "model_index.json": index,
        "unet/config.json": unet,
        "scheduler/scheduler_config.json": scheduler,
    }
    with folder_aside(folder) as aside:
        for file, content in files.items():
            (aside / file).parent.mkdir(exist_ok=True)
            text = json.dumps({**content, "_diffusers_version": VERSION}, indent=2)
            (aside / file).write_text(text + "\n", encoding="utf-8")
        save_file(dict(weights), aside / "unet" / WEIGHTS[0], metadata={"format": "pt"})
        (aside / "README.md").write_text(card, encoding="utf-8")
