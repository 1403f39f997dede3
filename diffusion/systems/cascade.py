"""Stages in a row: a base model, then upsamplers (Ho et al. 2021, CDM; GLIDE, DALL-E 2, Imagen)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.condition import Condition
from diffusion.data import Images
from diffusion.networks import Augmentation
from diffusion.noise import seed
from diffusion.sampler import Sampler
from diffusion.systems.base import check_stage
from diffusion.systems.checkpoints.agreement import agree
from diffusion.systems.checkpoints.contents import settings_of
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.checks import check_forgotten
from diffusion.systems.diffusion import Diffusion, check_given
from diffusion.systems.frozen import opened, restored
from diffusion.systems.texts import remember


class Cascade(Restorable):
    """Draws x_0 of the first stage, then of each next one given the one before as `low_res`.

    It only samples: `diffusion predict` and `test` work as for a single model, and `fit` is of each
    stage alone. Every stage reads the batch's texts and labels itself.

    Args:
        checkpoints: Of `Diffusion` modules, the base first; from the second on with an `Upsampler`.
        samplers: One for each stage; null for the one that it was trained with.
        level: How much noise upsamplers with an `Augmentation` are given on the small image; null
            for what each of them says.
        trust: Whether you made the checkpoints, so that all the classes they name may be made.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the numbers differ, a checkpoint is of something else, a stage does not
            continue from the one before, or an upsampler was not trained for the level.
    """

    has_weights = True  # those of its stages

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
        key = "model.checkpoints"
        files = [opened(Diffusion, path, key) for path in checkpoints]
        self.stages = nn.ModuleList([restored(Diffusion, path, key, trust) for path, _ in files])
        for number, (stage, sampler) in enumerate(zip(self._stages(), given)):
            stage.sampler = stage.sampler if sampler is None else sampler
            check_forgotten(stage.sampler, settings_of(files[number][1]), stage.denoiser.network)
            # The same noise numbers as the stage before would make its x_T a part of this one's.
            stage.seed = seed(stage.seed, number) if number else stage.seed
            follows = "low_res" in (stage.denoiser.conditions or ())
            if follows != (number > 0):
                raise ValueError(
                    f"model.checkpoints: {checkpoints[number]} is stage {number + 1}; expected "
                    "a base model first, then models with an Upsampler"
                )
            augmentation = getattr(stage.denoiser.network, "augmentation", None)
            if level is not None and isinstance(augmentation, Augmentation):
                stage.denoiser.network.augmentation = Augmentation(  # pyright: ignore
                    augmentation.process, augmentation.most, level
                )
        self.eval().requires_grad_(False)

    def _stages(self) -> list[Diffusion]:
        return cast(list[Diffusion], list(self.stages))

    @property
    def reads_labels(self) -> bool:
        """Whether a stage reads labels."""
        return any(stage.reads_labels for stage in self._stages())

    @property
    def reads_texts(self) -> bool:
        """Whether a stage reads texts."""
        return any(stage.reads_texts for stage in self._stages())

    @property
    def sampler(self) -> Sampler:
        """The last stage's."""
        return self._stages()[-1].sampler

    @property
    def process(self) -> Any:
        """The last stage's."""
        return self._stages()[-1].process

    def setup(self, stage: str) -> None:
        """Refuses to train, data of another size, and pictures that no stage looks at.

        Raises:
            ValueError: If it is to be trained, or the data does not fit.
        """
        if stage == "fit":
            raise ValueError(
                "fit: a Cascade is not trained; expected each stage's own configuration"
            )
        for part in self._stages():
            part.trainer = self.trainer  # for its autocast; Lightning stops at a ModuleList
        data: Any = getattr(self.trainer, "datamodule", None)
        check_stage(self.trainer, data, stage)
        if data is None:
            return
        self._compare(data)
        if tuple(data.shape) != (shape := shape_of(self._stages()[-1])):
            raise ValueError(
                f"data: images of shape {tuple(data.shape)}; expected {shape}, as the last stage "
                "draws them"
            )
        check_given(self._stages(), data)
        remember(self, data, self.cache, self.trainer)
        for part in self._stages():
            part.sampler.begin(part.process)

    def _compare(self, data: Images) -> None:
        """Refuses data with other classes than a stage reads, and guides of other data.

        Raises:
            ValueError: If they do not agree.
        """
        for stage in sorted(self._stages(), key=lambda stage: not stage.reads_labels):
            if stage.spec is not None:  # its own pictures may be smaller
                spec = replace(stage.spec, shape=data.spec.shape, levels=data.levels)
                agree(spec, data, stage.reads_labels)
        data.asked_classes()
        for stage in self._stages():
            for guide in stage.sampler.guidance:
                guide.check(stage.process, replace(data.spec, shape=shape_of(stage)))

    def condition(self, batch: dict[str, Any]) -> Condition:
        """Returns what every stage reads of a batch, its names behind the number of the stage."""
        values: dict[str, Tensor] = {}
        null: dict[str, float | Tensor] = {}
        for number, stage in enumerate(self._stages()):
            mine = stage.condition(resized(batch, shape_of(stage)))
            values.update({f"{number}.{k}": v for k, v in mine.values.items()})
            null.update({f"{number}.{k}": v for k, v in mine.null.items()})
        labels = {"label": batch["label"]} if "label" in batch and self.reads_labels else {}
        return Condition({**labels, **values}, null)

    def generate(self, cond: Condition, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Samples x_0 of the last stage; arguments as for `Diffusion.generate`."""
        x = torch.empty(0)
        for x in self.trajectory(cond, shape, seeds):  # noqa: B007
            pass
        return x

    def trajectory(
        self, cond: Condition, shape: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[Tensor]:
        """Yields the last stage's x at every time; arguments as for `generate`."""
        x_0: Tensor | None = None
        for number, stage in enumerate(self._stages()):
            mine = own(cond, number)
            if x_0 is not None:
                network: Any = stage.denoiser.network
                index = torch.tensor(list(seeds))
                small = network.read({"low_res": x_0, "index": index, "seed": stage.seed})
                mine = Condition({**mine.values, **small}, mine.null)
            walk = stage.trajectory(mine, shape_of(stage), seeds)
            if number == len(self.stages) - 1:
                yield from walk
            else:
                *_, x_0 = walk

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Callbacks measure the samples."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Samples with the numbers batch["index"] and the conditions in the batch."""
        return self.generate(
            self.condition(batch), shape_of(self._stages()[-1]), batch["index"].tolist()
        )


def resized(batch: dict[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    """Returns a batch for a stage of this shape (C, H, W), without what the stage before gives.

    "known" is shrunk by averaging; a pixel of "mask" is 1 where all that it stands for are known.
    """
    mine, size = {k: v for k, v in batch.items() if k != "low_res"}, (shape[1], shape[2])
    if "known" in mine:
        mine["known"] = F.adaptive_avg_pool2d(mine["known"], size)
    if "mask" in mine:
        mine["mask"] = 1 - F.adaptive_max_pool2d(1 - mine["mask"], size)
    return mine


def own(cond: Condition, number: int) -> Condition:
    """Returns the conditions of one stage."""
    prefix = f"{number}."
    cut = len(prefix)
    return Condition(
        {k[cut:]: v for k, v in cond.values.items() if k.startswith(prefix)},
        {k[cut:]: v for k, v in cond.null.items() if k.startswith(prefix)},
    )


def shape_of(stage: Diffusion) -> tuple[int, int, int]:
    """Returns the shape (C, H, W) that a stage draws."""
    network: Any = stage.denoiser.network
    return network.in_channels, network.image_size, network.image_size
