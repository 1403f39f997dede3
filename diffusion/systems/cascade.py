"""Stages in a row: a base model, then upsamplers (Ho et al. 2021, CDM; GLIDE, DALL-E 2, Imagen)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.hashing import weights_digest
from diffusion.data import Images
from diffusion.networks import Augmentation, LowResolution, image_embeddings
from diffusion.networks.conditioning.inpainting import resize_known
from diffusion.sampler import Sampler
from diffusion.spec import Batch
from diffusion.systems.checkpoints.agreement import agree
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.checks import check_given
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.generative import Generative
from diffusion.systems.texts import remember
from diffusion.systems.trainer import check_stage, data_of

HANDED = frozenset(("low_res", "embedding"))
PICTURED = {"embedding"}  # what a first stage may read, of the data's `image_prompt`


class Cascade(Generative, Restorable):
    """Draws x_0 of the first stage, then of each next one given that of the one before.

    What is handed on is `low_res`, a picture, or `embedding`, a vector of a stage whose codec only
    encodes; a first stage that reads one has it of the data's `image_prompt`. A cascade only
    samples: `diffusion predict` and `test` work as for a single model, and `fit` is of each stage
    alone. Every stage reads the batch's texts and labels itself.

    Args:
        checkpoints: Of `Diffusion` modules (in Python also these themselves), the base first; from
            the second on with an `Upsampler`, or another condition `low_res` or `embedding`.
        samplers: One for each stage; null for the one that it was trained with.
        level: How much noise upsamplers with an `Augmentation` are given on the small image; null
            for what each of them says.
        trust: Whether you made the checkpoints, so that all the classes they name may be made.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the numbers differ, a checkpoint is of something else, a stage does not
            continue from the one before, draws smaller pictures or reads embeddings of another
            codec, or an upsampler was not trained for the level.
    """

    def __init__(
        self,
        checkpoints: list[str],
        samplers: list[Sampler | None] | None = None,
        level: int | None = None,
        trust: bool = False,
    ) -> None:
        super().__init__()
        given = list(samplers or [None] * len(checkpoints))
        if not checkpoints or len(given) != len(checkpoints):
            raise ValueError(
                f"model.samplers: {len(given)}; expected one for each of the "
                f"{len(checkpoints)} checkpoints, at least one"
            )
        self.stages, wanted = nn.ModuleList(), set[str]()
        for number, (checkpoint, sampler) in enumerate(zip(checkpoints, given), 1):
            stage: Any = checkpoint
            if not isinstance(stage, Diffusion):
                key = "model.checkpoints"
                stage = Diffusion.load_from_checkpoint(stage, trust=trust, key=key)
            check_embedding([*self.stages[-1:], stage])
            check_size([*self._stages()[-1:], stage])
            self.stages.append(stage)
            stage.sampler = stage.sampler if sampler is None else sampler
            trained = {"p_uncond": stage.p_uncond} if stage.trained is None else stage.trained
            stage.check_drawing(stage.sampler, trained)
            reads = HANDED.intersection(stage.denoiser.conditions or ())
            if reads != wanted and (wanted or reads != PICTURED):
                raise ValueError(
                    f"model.checkpoints: stage {number} reads {sorted(reads)}; expected "
                    f"{sorted(wanted)}: a base model first, then models with an Upsampler, or that "
                    "read the embedding which the stage before draws"
                )
            wanted = {handed(stage)}
            for one in stage.denoiser.contract.conditioners:
                if level is not None and isinstance(one, LowResolution) and one.augmentation:
                    old = one.augmentation
                    one.augmentation = Augmentation(old.process, old.most, level)
        self.seed = self._stages()[0].seed
        self.eval().requires_grad_(False)

    def _stages(self) -> list[Diffusion]:
        return [stage for stage in self.stages if isinstance(stage, Diffusion)]

    @property
    def seed(self) -> int:
        """Of the first stage's noise."""
        return self._stages()[0].seed

    @seed.setter
    def seed(self, value: int) -> None:
        # The same noise numbers as the stage before would make its x_T a part of this one's.
        for number, stage in enumerate(self._stages()):
            stage.seed = value + (number << 32)

    @property
    def has_weights(self) -> bool:
        """True: those of its stages."""
        return True

    @property
    def reads_labels(self) -> bool:
        """Whether a stage reads labels."""
        return any(stage.reads_labels for stage in self._stages())

    @property
    def reads_texts(self) -> bool:
        """Whether a stage reads texts."""
        return any(stage.reads_texts for stage in self._stages())

    @property
    def reads_anything(self) -> bool:
        """Whether a stage reads more than the picture of the one before."""
        return any(
            stage.denoiser.conditions is None
            or stage.denoiser.conditions - HANDED
            or stage.sampler.needs
            for stage in self._stages()
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The last stage's."""
        return self._stages()[-1].shape

    @property
    def moments(self) -> int:
        """The last stage's."""
        return self._stages()[-1].moments

    def networks(self) -> dict[str, list[nn.Module]]:
        """Returns those of all stages, and as "nfe_64x64" those that draw pictures of one size."""
        found: dict[str, list[nn.Module]] = {}
        for stage in self._stages():
            mine = stage.networks()
            if len(self.stages) > 1:
                size = "x".join(map(str, stage.shape[1:] or stage.shape))
                mine[f"nfe_{size}"] = mine["nfe"]
            for name, parts in mine.items():
                found[name] = list(dict.fromkeys([*found.get(name, []), *parts]))
        return found

    def settings(self) -> dict[str, Any]:
        """Returns {"stages": those of each}."""
        return {"stages": [stage.settings() for stage in self._stages()]}

    def decoded(self, x: Tensor) -> Tensor:
        """Returns what the last stage makes of x."""
        return self._stages()[-1].decoded(x)

    def setup(self, stage: str) -> None:
        """Refuses to train, data of another size or other classes, and guides of other data.

        Raises:
            ValueError: If it is to be trained, or the data does not fit.
        """
        if stage == "fit":
            raise ValueError(
                "fit: a Cascade is not trained; expected each stage's own configuration"
            )
        for part in self._stages():
            part.trainer = self.trainer  # for its autocast; Lightning stops at a ModuleList
        data = data_of(self.trainer)
        check_stage(self.trainer, stage)
        if not isinstance(data, Images):
            return
        for part in sorted(self._stages(), key=lambda part: not part.reads_labels):
            if part.spec is not None:  # its own pictures may be smaller
                spec = replace(part.spec, shape=data.spec.shape, levels=data.levels)
                agree(spec, data, part.reads_labels)
        data.asked_classes()
        if tuple(data.shape) != (shape := self.shape):
            raise ValueError(
                f"data: images of shape {tuple(data.shape)}; expected {shape}, as the last stage "
                "draws them"
            )
        check_given(self._stages(), data)
        remember(self, data, self.cache, self.trainer)
        for part in self._stages():
            for guide in part.sampler.guidance:
                guide.check(part.process, replace(data.spec, shape=part.shape))
            part.sampler.begin(part.process)

    @torch.no_grad()
    def trajectory(self, batch: Batch, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yields the last stage's x at every time."""
        *before, last = self._stages()
        given: dict[str, Any] = {}
        for stage in before:
            x_0 = stage.generate({**request_of(batch, stage), **given}, seeds)
            given = {handed(stage): x_0}
        yield from last.trajectory({**request_of(batch, last), **given}, seeds)


def check_embedding(stages: Sequence[nn.Module]) -> None:
    """Refuses that one of two stages reads embeddings of another codec than the other draws.

    Raises:
        ValueError: If their codecs' weights, or digests of weights, differ.
    """
    *before, stage = (stage for stage in stages if isinstance(stage, Diffusion))
    reading = image_embeddings(stage.denoiser.contract.conditioners).values()
    read = [one.codec for one in reading]
    drawn = [one.codec for one in before if not one.codec.decodes]
    if drawn and len({weights_digest(codec.state_dict()) for codec in [*read, *drawn]}) > 1:
        raise ValueError(
            "model.checkpoints: a decoder of another CLIP's embeddings; expected the CLIP whose "
            "embeddings the stage before draws"
        )


def check_size(stages: Sequence[Diffusion]) -> None:
    """Refuses that a stage draws smaller pictures than the one before.

    Raises:
        ValueError: If it does.
    """
    sizes = [stage.shape[1:] for stage in stages if len(stage.shape) == 3]
    if sizes and min(sizes[-1]) < min(sizes[0]):
        large, small = (" x ".join(map(str, size)) for size in (sizes[0], sizes[-1]))
        raise ValueError(
            f"model.checkpoints: a stage of {small} after one of {large}; expected the smaller "
            "pictures first"
        )


def handed(stage: Diffusion) -> str:
    """Returns the condition as which the next stage reads what this one draws."""
    return "low_res" if len(stage.shape) == 3 else "embedding"


def request_of(batch: Batch, stage: Diffusion) -> dict[str, Any]:
    """Returns a batch for a stage of its own size, without what the stage before gives."""
    mine = {k: v for k, v in batch.items() if k not in HANDED}
    if len(stage.shape) != 3:
        return {k: v for k, v in mine.items() if k not in ("known", "mask")}
    size = (stage.shape[1], stage.shape[2])
    if isinstance(prompt := mine.get("image_prompt"), Tensor):
        mine["image_prompt"] = F.interpolate(prompt, size, mode="area")
    return stage.denoiser.contract.resized(resize_known(mine, size), size)
