"""A classifier of noisy images, fixed, as guidance calls it."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.guidance import NoiseAware
from diffusion.interop.weights import read
from diffusion.process import Process
from diffusion.training.classifier import DATA, NoisyClassifier, log_prob

KEY = "guidance.classifier.checkpoint"
EXPECTED = "expected a NoisyClassifier's checkpoint"


class Frozen(NoiseAware):
    """log p_φ(y | x_t, t) with φ fixed: a copy of the network, in float32 and without gradients.

    A label outside 0 … K − 1 is ∅: log p is 0 there, and so is the gradient.

    Args:
        network: Called as network(x_t, t), returns logits (B, K).
        process: The forward process it was trained with.
        data: What it was trained on: "name", "shape", "num_classes", "classes"; see `describe`.

    Raises:
        ValueError: If it is not known what the network was trained on.
    """

    def __init__(
        self, network: nn.Module, process: Process, data: Mapping[str, Any] | None
    ) -> None:
        if data is None:
            raise ValueError(
                "data: None; expected what the classifier was trained on, see `describe`"
            )
        super().__init__(
            process, data["shape"], data["num_classes"], data["classes"] or None, data["name"]
        )
        self.network = copy.deepcopy(network)
        self.float().eval().requires_grad_(False)

    def log_prob(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """See `NoiseAware`; the condition is "label", shape (B,)."""
        if t.ndim == 0:
            t = torch.full(x_t.shape[:1], int(t), device=x_t.device)
        return log_prob(self.network, x_t, t, cond.values["label"])


class Trained(Frozen):
    """A `NoisyClassifier` from its checkpoint, with the averaged weights if there are any.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, such as runs/classifier_fashion/checkpoints/last.ckpt.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """

    def __init__(self, checkpoint: str) -> None:
        path = Path(checkpoint).expanduser()
        data = _description(path)
        with torch.random.fork_rng(devices=[]):  # initial weights leave no trace
            module = NoisyClassifier.load_from_checkpoint(
                path, map_location="cpu", weights_only=True
            )
        super().__init__(module.network, module.process, data)


def _description(path: Path) -> dict[str, Any]:
    """Returns what a checkpoint says of the data, once it is known for what it is."""
    if not path.is_file():
        raise FileNotFoundError(f"{KEY}: {path}; {EXPECTED}, there is no such file")
    try:
        saved = read(path, KEY)
    except ValueError as error:
        raise ValueError(
            f"{KEY}: {path}; {EXPECTED}, this file is cut short or something else"
        ) from error
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise ValueError(f"{KEY}: {path}; {EXPECTED}, this file has no more than weights")
    made_by = saved.get("hyper_parameters", {}).get("_class_path")
    if made_by is None:
        raise ValueError(
            f"{KEY}: {path}; {EXPECTED} made by `diffusion fit`, this one does not say of what"
        )
    if DATA not in saved:
        raise ValueError(f"{KEY}: {path}; {EXPECTED}, this one is of {made_by.rsplit('.', 1)[-1]}")
    return saved[DATA]
