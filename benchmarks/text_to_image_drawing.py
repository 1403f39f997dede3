"""How text_to_image.py and its kin draw: a network, what it reads, and what guides it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from cost import Meter, flops
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion.guidance import ClassifierFree, Clip, Guidance, Static
from diffusion.sampler import Sampler
from diffusion.step import UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.embeddings.clip_text import ClipText
from diffusion.systems.frozen import TrainedClip

STEPS = 10
CLIP = "weights/clip_emoji"


@dataclass(frozen=True)
class Way:
    """A network, where its embedding z comes from if it reads one, and what guides it.

    A CLIP, by its checkpoint, guides it without its text, and x̂_0 is clipped.
    """

    name: str
    model: str
    scale: float
    z: Literal["prior", "own picture", "text", "none", ""] = ""
    text: bool = True
    threshold: type[Guidance] | None = None
    clip: str = ""

    @property
    def files(self) -> set[str]:
        """The checkpoints that have to be there."""
        return {self.model, self.clip} - {""}

    @property
    def folder(self) -> str:
        """A name for files."""
        return f"{self.name}-s{self.scale:g}".replace(" ", "_").replace(",", "")


def present(every: Sequence[Way]) -> list[Way]:
    """Returns the ways all of whose checkpoints are there, and says which are not."""
    files = {path for way in every for path in way.files}
    if gone := {path for path in files if not Path(path).exists()}:
        print(f"left out, as they are not there: {', '.join(sorted(gone))}")
    return [way for way in every if not gone & way.files]


class Draw:
    """Draws by any way; models are read once.

    Args:
        prior: The checkpoint of the prior.
        device: Where models are.
    """

    def __init__(self, prior: str, device: str = "cpu") -> None:
        self.prior_path, self.device = prior, device
        self.models: dict[str, Diffusion] = {}
        self.clips: dict[str, TrainedClip] = {}
        self.texts = ClipText(CLIP)

    def model(self, path: str) -> Diffusion:
        """Returns a model."""
        if path not in self.models:
            self.models[path] = Diffusion.load_from_checkpoint(path).eval().to(self.device)
        return self.models[path]

    def clip(self, way: Way) -> Clip:
        """Returns what guides a way, by x̂_0 if its CLIP knows clean pictures alone."""
        if way.clip not in self.clips:
            self.clips[way.clip] = TrainedClip(way.clip)
        clip = self.clips[way.clip]
        if clip.process:
            return Clip(way.scale, clip)
        return Clip(way.scale, clip, "x_0", through=True, shifts=4)

    def z(self, way: Way, batch: dict[str, Any], noise: Sequence[int]) -> Tensor | None:
        """Returns embeddings of pictures by which a decoder draws."""
        if way.z == "prior":
            return self.model(self.prior_path).generate({"text": batch["text"]}, noise)
        if way.z == "text":
            return self.texts.read(batch["text"])["_pooled"]
        if way.z == "own picture":
            return self.model(self.prior_path).encoded(batch["image_prompt"])
        return None

    @torch.no_grad()
    def __call__(self, way: Way, batch: dict[str, Any], noise: Sequence[int]) -> Tensor:
        """Returns pictures (B, 3, 32, 32), on the CPU."""
        batch = move_data_to_device(batch, self.device)
        model, z = self.model(way.model), self.z(way, batch, noise)
        guides: list[Guidance] = [ClassifierFree(way.scale)]
        if way.clip:
            guides = [ClassifierFree(0), self.clip(way), Static()]
        guides += [way.threshold()] if way.threshold else []
        model.sampler = Sampler(UniPC(), STEPS, guides)
        texts = batch["text"] if way.text else [""] * len(batch["text"])
        return model.generate(
            {"text": texts} | ({} if z is None else {"embedding": z}), noise
        ).cpu()


def gflop(by: Draw, way: Way) -> float:
    """Returns the operations of a picture whose text was read before, in 10⁹."""
    batch: dict[str, Any] = {"text": ["a google emoji of a fox"]}
    by(way, batch, [0])
    with Meter() as meter:
        by(way, batch, [0])
    return round(flops(meter.ops) / 1e9, 2)
