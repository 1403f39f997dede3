"""How pictures of persons are drawn with IP-Adapter and InstantID, for `instantid.py`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import Row
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.data import Avatars
from diffusion.guidance import ClassifierFree, ControlStrength, Guidance, ImageStrength
from diffusion.networks import InstantID
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.texts import remember

LAST = "runs/{}/checkpoints/last.ckpt"
CAPTIONS = "own", "none", "another's"


@dataclass(frozen=True)
class Way:
    """How pictures are drawn: a model, λ, the strength of IdentityNet, and whose captions."""

    model: str
    weight: float
    strength: float
    captions: str = "own"

    @property
    def row(self) -> Row:
        """What tells its row from others."""
        return {
            "captions": self.captions,
            "model": self.model,
            "lambda": self.weight,
            "strength": self.strength,
        }


class Draw:
    """Draws requests.

    Args:
        args: The command line.
        data: What is asked.
    """

    def __init__(self, args: argparse.Namespace, data: Avatars) -> None:
        self.device, self.steps, self.scale = args.device, args.steps, args.scale
        self.models = dict[str, Diffusion]()
        for name, path in (("ip_adapter", args.adapter), ("instantid", args.instantid)):
            if not Path(path).exists():
                print(f"left out, as it is not there: {path}")
                continue
            moved = {LAST.format("glide_avatars"): args.base} if args.base else None
            model = Diffusion.load_from_checkpoint(path, moved=moved).eval().to(args.device)
            self.models[name] = model
            remember(model.denoiser.network, data, Path(args.cache), None)

    def __call__(self, way: Way, batch: dict[str, Any], noise: Sequence[int]) -> Tensor:
        """Returns pictures, uint8 (B, 3, H, W), on the CPU."""
        model = self.models[way.model]
        guides: list[Guidance] = [
            ClassifierFree(self.scale),
            ImageStrength("identity", way.weight),
        ]
        if isinstance(model.denoiser.network, InstantID):
            guides.append(ControlStrength("pose", way.strength))
        model.sampler = Sampler(UniPC(), self.steps, guides)
        read = {key: batch[key] for key in ("text", "identity", "pose")}
        return quantize(model.generate(move_data_to_device(read, self.device), noise)).cpu()


def requests(data: Avatars, numbers: Sequence[int], captions: str, n: int) -> dict[str, Any]:
    """Returns what samples are asked to be; in conflict, by the caption of sample i + n / 2."""
    batch = dict(data.on_after_batch_transfer(data.measured(numbers), 0))
    if captions == "none":
        batch["text"] = [""] * len(numbers)
    elif captions != "own":
        batch["text"] = data.measured([(i + n // 2) % n for i in numbers])["text"]
    return batch
