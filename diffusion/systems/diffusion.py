"""The LightningModule: names the parts, trains them, and samples from them. No maths here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from diffusion.codec import Codec, Pixels
from diffusion.common.devices import moved
from diffusion.condition import Condition, Forget
from diffusion.data import Images
from diffusion.denoiser import LockedNetwork, NetworkDenoiser
from diffusion.guidance import Clip
from diffusion.networks import identity_tokens
from diffusion.noise import Purpose, SeededNoise
from diffusion.objective import Objective
from diffusion.parameterization import Parameterization
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.spec import Batch, grey
from diffusion.systems.base import StepOutput, System, channels_last, spread_times
from diffusion.systems.checkpoints.agreement import agree
from diffusion.systems.checkpoints.restorable import settings_of
from diffusion.systems.checks import (
    check_base,
    check_forgetting,
    check_forgotten,
    check_given,
    check_target,
    check_told,
    check_variance,
)
from diffusion.systems.generative import Generative
from diffusion.systems.texts import remember, remember_pictures
from diffusion.systems.trainer import check_stage


class Diffusion(Generative, System):
    """Trains a denoiser on batches {"image": (B, ...) in [−1, 1], **conditions}, and samples.

    Args:
        network: Called as network(x_t, t, **conditions); its attribute `null` says what ∅ is.
        process: The forward process.
        parameterization: What the network's output means.
        objective: The training loss.
        sampler: How `generate` samples.
        p_uncond: How often training forgets a sample's conditions, 0 … 1, for classifier-free
            guidance; or a list that says it for some of them, see `Forget`.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: A checkpoint whose averaged weights training starts from; see `begin`.
        codec: What is diffused; the pixels themselves by default.

    Raises:
        ValueError: If a probability lies outside 0 … 1, or is positive where the network has no ∅,
            or a learned variance is used that the network does not put out.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        parameterization: Parameterization,
        objective: Objective,
        sampler: Sampler,
        p_uncond: float | list[Forget] = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        start: str | None = None,
        codec: Codec | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, start)
        self.codec = Pixels() if codec is None else codec.eval().requires_grad_(False)
        self.denoiser = NetworkDenoiser(channels_last(network), process, parameterization)
        check_base(network, process, parameterization)
        parts = {"model.objective": objective, "model.sampler.step": sampler.step}
        check_target(process, parameterization, objective)
        check_variance(self.denoiser.contract, parts)
        check_forgetting(self.denoiser.contract, p_uncond)
        # Not as a second submodule: the weights of a learned one are the denoiser's.
        object.__setattr__(self, "process", process)
        self.objective, self.sampler = objective, sampler
        self.p_uncond = p_uncond

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the data or, where the codec only encodes, of what is diffused."""
        known = self.spec or self._data()
        return tuple(known.shape) if known and self.codec.decodes else self.diffused

    @property
    def diffused(self) -> tuple[int, ...]:
        """The shape of what is diffused; without data, of what the network is made for.

        Raises:
            ValueError: If neither says it.
        """
        data = self._data()
        if (known := self.spec or (data and data.spec)) is not None:
            return self.codec.spec(known).shape
        network = self.denoiser.contract
        channels, side = network.in_channels, network.image_size
        if not channels or not side:
            kind = type(self.denoiser.network).__name__
            raise ValueError(
                f"spec: None; expected what was trained on, as {kind} does not say the shape of a "
                "sample"
            )
        return channels, side, side

    @torch.no_grad()
    def encoded(self, x: Tensor) -> Tensor:
        """Returns what is diffused of pictures."""
        return self.codec.encode(x)

    def decoded(self, x: Tensor) -> Tensor:
        """Returns what the codec makes of x, or x itself where it only encodes."""
        return self.codec.decode(x) if self.codec.decodes else x

    @property
    def moments(self) -> int:
        """How many times the sampler visits."""
        return len(self.sampler.times(self.process))

    @property
    def reads_anything(self) -> bool:
        """Whether the network or the guidance reads conditions."""
        return self.denoiser.conditions != frozenset() or bool(self.sampler.needs)

    @property
    def reads_labels(self) -> bool:
        """Whether the network or the guidance reads labels."""
        conditions = self.denoiser.conditions
        return conditions is None or "label" in conditions or "label" in self.sampler.needs

    @property
    def reads_texts(self) -> bool:
        """Whether the network or the guidance reads texts."""
        return super().reads_texts or any(isinstance(g, Clip) for g in self.sampler.guidance)

    @property
    def reads_identities(self) -> bool:
        """Whether the network reads who is seen."""
        return bool(identity_tokens(self.denoiser.contract.conditioners))

    @property
    def has_weights(self) -> bool:
        """Whether nothing is left to be trained, as in a `ControlNet` of trained branches."""
        return not any(p.requires_grad for p in self.parameters())

    def setup(self, stage: str) -> None:
        """Refuses data and samplers that do not fit the network, before anything is trained."""
        self.sampler.begin(self.process)
        check_stage(self.trainer, stage)
        about = {"p_uncond": self.p_uncond, "start": self.start}
        self.check_drawing(self.sampler, about if stage == "fit" else None)
        super().setup(stage)
        if stage == "fit" and (data := self._data()) is not None:
            self.objective.check(self.process, self.codec.spec(data.spec))
            check_told(self.denoiser.conditions, data)
            for part in self.denoiser.modules():
                if isinstance(part, LockedNetwork) and part.spec is not None:
                    agree(part.spec, data, self.reads_labels, beginning=True)
            remember_pictures(self, data, self.cache, self.trainer)

    def check_drawing(self, sampler: Sampler, trained: Mapping[str, Any] | None = None) -> None:
        """Refuses a sampler for which the model was not trained.

        `Distilled` trains for one alone, and what draws with ∅ wants some of it in training.

        Args:
            sampler: What draws.
            trained: The settings of the training, for `check_forgotten`; None if nothing is known.

        Raises:
            ValueError: If it does not fit.
        """
        if trained is not None:
            check_forgotten(sampler, trained, self.denoiser.contract)
        self.objective.check_drawing(self.process, sampler.step, sampler.times(self.process))

    def check(self, data: Images) -> None:
        """See `System`."""
        spec = self.codec.spec(data.spec)
        for seen in data.specs:
            self.denoiser.contract.check(self.codec.spec(seen), self.process.T)
        if self.process.binary and spec.levels != 2:
            raise ValueError(
                f"data: {spec.name} has {grey(spec.levels)}; expected two, for a process of bits"
            )
        if "mask" in self.sampler.needs and not isinstance(self.codec, Pixels):
            raise ValueError(
                f"model.codec: {type(self.codec).__name__}; expected Pixels, as a mask is of pixels"
            )
        data.asked_classes()
        remember(self.denoiser.network, data, self.cache, self.trainer)
        check_given([self], data)
        for guide in self.sampler.guidance:
            guide.check(self.process, spec)

    def condition(self, batch: Batch) -> Condition:
        """Returns what of a batch of requests the network or the guidance reads."""
        found = {k: batch[k] for k in self.sampler.needs if isinstance(batch.get(k), Tensor)}
        found |= self.denoiser.contract.read(batch)
        for guide in self.sampler.guidance:
            found |= guide.read(batch)
        return self._condition(found)

    def network_condition(self, batch: Batch) -> Condition:
        """Returns what of a batch the network reads: all that a loss needs, without guidance.

        What is drawn for it is drawn by "noise", the samples' `SeededNoise`.
        """
        return self._condition(self.denoiser.contract.read(batch, self.denoiser.training))

    def _condition(self, values: dict[str, Tensor]) -> Condition:
        """Returns a condition with the network's ∅, on this module's device."""
        if "known" in values and not isinstance(self.codec, Pixels):
            values["known"] = self.encoded(moved(values["known"], self.device))
        null = dict(self.denoiser.contract.null) if values else {}
        return Condition(
            {k: moved(v, self.device) for k, v in values.items()},
            {k: moved(v, self.device) if isinstance(v, Tensor) else v for k, v in null.items()},
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> StepOutput:
        """One loss; forgetting labels for classifier-free guidance happens here."""
        noise = self.step_noise(batch_idx, len(batch["image"]))
        x_0 = self.encoded(batch["image"])
        cond = self.network_condition({**batch, "noise": noise})
        cond = cond.drop(self.p_uncond, noise=noise.of(Purpose.FORGETTING))
        t, eps = self.objective.draw(self.process, x_0, noise)
        losses = self.objective(self.denoiser, x_0, cond, t, eps)
        loss = self.objective.weigh(t, losses).mean()
        return {"loss": loss, "losses": losses.detach(), "t": t}

    def on_validation_epoch_start(self) -> None:
        """Begins to add up."""
        self.total = torch.zeros(2, device=self.device)  # of losses, and how many

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The loss at fixed times and noise, so that it compares from one time to the next."""
        if not batch:  # another process has the last one
            return
        x_0 = self.encoded(batch["image"])
        noise = self.fixed_noise(batch_idx, len(x_0))
        t = spread_times(len(x_0), self.number(batch_idx), self.process.T).to(x_0.device)
        cond = self.network_condition({**batch, "noise": noise})
        losses = self.objective(self.denoiser, x_0, cond, t, noise(x_0))
        self.total += torch.stack([losses.sum(), torch.ones_like(losses).sum()])

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over the pictures of all processes."""
        total: Any = self.trainer.strategy.reduce(self.total, reduce_op="sum")
        self.log("val/loss", total[0] / total[1], sync_dist=True, prog_bar=True)

    def networks(self) -> dict[str, list[nn.Module]]:
        """Returns {"nfe": the network, "classifier_nfe": what guides, if anything does}."""
        guides = dict.fromkeys(part for one in self.sampler.guidance for part in one.networks)
        found: dict[str, list[nn.Module]] = {"nfe": [self.denoiser.network]}
        return found | ({"classifier_nfe": list(guides)} if guides else {})

    def settings(self) -> dict[str, Any]:
        """Returns sampler, process, seed, parameterization and network."""
        return {
            "sampler": self.sampler,
            "process": self.process,
            "seed": self.seed,
            "parameterization": self.denoiser.parameterization,
            "network": self.denoiser.network,
        }

    @torch.no_grad()
    def trajectory(self, batch: Batch, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yields x_T, or what else the sampler starts from, then x at every time down to x_0.

        Arguments as for `Generative`.
        """
        noise = SeededNoise(self.seed, seeds, self.device)
        with evaluating(self.denoiser):
            cond = self.condition({**batch, "noise": noise})
            x_T = noise.normal(self.diffused)
            steps = self.sampler.trajectory(self.denoiser, self.process, x_T, cond, noise)
            first = self.sampler.start(self.process, x_T, cond)
            yield from chain([first], self._with_precision(steps))

    def _with_precision(self, steps: Iterator[Tensor]) -> Iterator[Tensor]:
        """Runs each move under the Trainer's autocast, which callbacks' hooks do not have."""
        plugin = self._trainer.precision_plugin if self._trainer is not None else None
        while True:
            mixed = isinstance(plugin, MixedPrecision)
            with plugin.forward_context() if mixed else nullcontext():
                x = next(steps, None)
            if x is None:
                return
            yield x

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the objective has learnt, too."""
        super().on_save_checkpoint(checkpoint)
        if state := self.objective.state_dict():
            checkpoint["objective"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hands it back, once it is known that the sampler suits how the model was trained."""
        if self._trainer is not None and not self._trainer.training:
            self.check_drawing(self.sampler, settings_of(checkpoint))
        super().on_load_checkpoint(checkpoint)
        self.objective.load_state_dict(checkpoint.get("objective", {}))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation for a while, and those of its parts that trained back."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
