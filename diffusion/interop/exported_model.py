"""A model as a folder: averaged weights in half precision, configuration and card.

`model.safetensors` alone is a checkpoint without the state of the training: the entries of one that
are plain values stand in its metadata. The other files are to be read by people.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion.common.files import MODEL, folder_aside
from diffusion.common.hashing import weights_digest
from diffusion.common.weights import CHECKPOINT

KEPT = ("epoch", "global_step", "hparams_name", "hyper_parameters", "config", "data")
VERSION = "pytorch-lightning_version"
TEST = "    diffusion test --ckpt_path {name}"
USES = {  # of a folder {name}, by the class of the system; others are tested
    "Diffusion": "    diffusion predict --ckpt_path {name}",
    "Captioner": "    diffusion caption --ckpt_path {name} --folder PICTURES",
    "PromptUpsampler": f"{TEST}\n"
    '    diffusion predict --ckpt_path MODEL --prompt "a fox" --upsample_prompt {name}',
    "Swapper": "    diffusion swap --ckpt_path {name} --source A.png --target B.png --output C.png",
    "Contrastive": f"{TEST}\n\nIt draws nothing: it guides or judges, as `TrainedClip` with "
    "`checkpoint: {name}`.",
    "NoisyClassifier": f"{TEST}\n\nIt draws nothing: it guides, as `Trained` with "
    "`checkpoint: {name}`.",
    "IdentityEncoder": f"{TEST}\n\nIt draws nothing: it says who is seen, as `TrainedIdentity` "
    "with `checkpoint: {name}`.",
}


def write_model(folder: Path, content: Mapping[str, Any], card: str) -> None:
    """Writes the folder.

    Args:
        folder: Where to; it must not exist.
        content: A checkpoint; its "config" is YAML.
        card: The text of README.md.

    Raises:
        FileExistsError: If there is such a folder or file.
        ValueError: If a weight is beyond fp16.
    """
    about = {key: content[key] for key in (*KEPT, VERSION) if key in content}
    with folder_aside(folder) as aside:
        metadata = {"format": "pt", CHECKPOINT: json.dumps(about)}
        save_file(halves(content["state_dict"]), aside / MODEL, metadata=metadata)
        (aside / "config.yaml").write_text(str(content.get("config", "")), encoding="utf-8")
        (aside / "README.md").write_text(card, encoding="utf-8")


def halves(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors with floats in fp16.

    Raises:
        ValueError: If one is not finite there.
    """
    found = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    for name, value in found.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"ckpt: {name} is beyond ±65504; expected weights of fp16's range")
    return {name: value.contiguous() for name, value in found.items()}


def of_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the network's tensors of a system's, by its own names, as its `state_dict` has them.

    Not what a system has beside it: a critic, the digest of an encoder, a learned process.
    """
    for prefix in ("denoiser.network.", "network."):
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if own:
            return own
    return dict(state)


def card(name: str, content: Mapping[str, Any], license: str, measured: str) -> str:
    """Returns README.md.

    Args:
        name: The folder's.
        content: The checkpoint.
        license: Of the weights, as whoever exports them states it.
        measured: The figures of the last test, in Markdown.
    """
    state, data = content["state_dict"], content.get("data") or {}
    about = content.get("hyper_parameters") or {}
    kind = str(about.get("_class_path", "")).rpartition(".")[2]
    size = sum(value.numel() for value in state.values())
    shape = " x ".join(map(str, data.get("shape") or ())) or "samples"
    return f"""---
license: {license}
tags: [diffusion]
---

# {name}

{size:,} parameters, averages of {content.get("global_step", 0):,} steps on \
{data.get("name") or "data that is not stated"}, {shape}, in half precision, with its \
configuration. Digest of the network: `{weights_digest(of_network(state))}`.

{USES.get(kind, TEST).format(name=name)}

## Figures

{measured}

## Licence

{license}. The licences of the data apply too.
"""
