"""Features of real images, computed once."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.hashing import digest
from diffusion.common.weights import read
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.real_images import Data, Rule, pick


def real_features(
    data: Data,
    split: str,
    rule: Rule,
    extractor: Extractor,
    cache: Path,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Returns the features (N, D) of a split's picked images, float32 on the CPU.

    They are stored under `cache` by a hash of the split's content, the rule and the extractor's
    weights, so that the next run, and the next validation, only reads them.

    Args:
        data: The data module.
        split: "train", "val" or "test".
        rule: Which of the split's images.
        extractor: A prepared extractor.
        cache: Folder for files that are computed once.
        device: Where the extractor computes.
    """
    path = kept_at(data, split, rule, extractor, cache)
    if not path.is_file():
        parts = [extractor(b["image"].to(device))[0].cpu() for b in pick(data, split, rule)]
        with written_aside(path) as part:
            torch.save(torch.cat(parts), part)
    return read(path, "metrics.cache")


def kept_at(data: Data, split: str, rule: Rule, extractor: Extractor, cache: Path) -> Path:
    """Returns where `real_features` keeps what it has computed; arguments as there."""
    key = {
        "data": data.fingerprint(split),
        "split": split,
        "shape": list(data.shape),
        "rule": rule,
        "extractor": extractor.fingerprint,
    }
    return cache / f"features-{extractor.name}-{digest(key)}.pt"
