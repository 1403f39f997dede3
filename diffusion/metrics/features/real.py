"""Features of real images, computed once."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.hashing import digest
from diffusion.metrics.features.base import Extractor, computed_once
from diffusion.metrics.real_images import Data, Rule, selected


def real_features(
    data: Data,
    split: str,
    rule: Rule,
    extractor: Extractor,
    cache: Path,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Returns the features (N, D) of a split's selected images, float32 on the CPU.

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

    def features() -> Tensor:
        batches = (batch["image"].to(device) for batch in selected(data, split, rule))
        return torch.cat([extractor(images)[0].cpu() for images in batches])

    return computed_once(features_file(data, split, rule, extractor, cache), features)


def features_file(data: Data, split: str, rule: Rule, extractor: Extractor, cache: Path) -> Path:
    """Returns where `real_features` stores what it has computed; arguments as there."""
    key = {
        "data": data.fingerprint(split),
        "split": split,
        "shape": list(data.shape),
        "rule": rule,
        "extractor": extractor.fingerprint,
    }
    return cache / f"features-{extractor.name}-{digest(key)}.pt"
