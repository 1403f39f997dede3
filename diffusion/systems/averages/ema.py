"""A moving average of the trained weights, in place wherever one evaluates."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor

from diffusion.systems.averages.power import Power
from diffusion.systems.averages.schedule_free import ScheduleFreeAdamW

RAW = "raw_state_dict"
STEPS = "ema_steps"


class EMA(L.Callback):
    """θ̄ ← d θ̄ + (1 − d) θ after every optimizer step, d = min(decay, (1 + n) / (10 + n)).

    Only trained parameters are averaged, so frozen encoders cost nothing. Validation, testing,
    prediction and samples see θ̄, and so does `load_from_checkpoint`: a checkpoint's `state_dict`
    holds θ̄, with θ beside it under "raw_state_dict" for resuming.

    Args:
        decay: The limit of d; 0 switches averaging off; None takes the average that the optimizer
            keeps, as `ScheduleFreeAdamW` does, for θ̄.
        warmup: Whether d starts low, so that early averages are not mostly the initial weights.
        rate: d of the n-th update in place of both, such as `Power`, whose length grows with n.

    Raises:
        ValueError: If the decay is not in [0, 1), a rate comes beside None, or the optimizer keeps
            an average and is not asked for it, or is asked and keeps none.
    """

    def __init__(
        self, decay: float | None = 0.9999, warmup: bool = True, rate: Power | None = None
    ) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"ema.decay: {decay}; expected 0 ≤ decay < 1")
        if decay is None and rate is not None:
            raise ValueError(f"ema.rate: {type(rate).__name__}; expected null, as ema.decay is")
        self.decay, self.warmup, self.given, self.steps = decay, warmup, rate, 0
        self.own: ScheduleFreeAdamW | None = None
        self.average: dict[str, Tensor] = {}
        self.trained: list[Tensor] = []
        self.swapped = False

    def rate(self, n: int) -> float:
        """Returns d of the n-th update, n ≥ 1."""
        if self.given is not None:
            return self.given(n)
        limit = self.decay or 0.0
        return min(limit, (1 + n) / (10 + n)) if self.warmup else limit

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins with the weights as they are, unless a checkpoint brought averages."""
        self.own = self._optimizers_own(trainer)
        if self.decay != 0:
            kept, trained = self.average, self._trained(pl_module)
            self.average = {
                k: kept[k].to(p) if k in kept else p.detach().clone() for k, p in trained.items()
            }
            self.trained = [*trained.values()]  # once: to walk over all modules takes its time

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_args: Any, **_options: Any
    ) -> None:
        """Averages once an optimizer step, not once a micro-batch."""
        if trainer.global_step == self.steps or not self.average:
            return
        self.steps = trainer.global_step
        if self.own is None:
            torch._foreach_lerp_([*self.average.values()], self.trained, 1 - self.rate(self.steps))

    def _renew(self) -> None:
        """Takes the optimizer's own average; no step of training needs it."""
        if self.own is not None and not self.swapped:
            for average, x in zip(self.average.values(), self.own.averages(self.trained)):
                average.copy_(x)

    def _optimizers_own(self, trainer: L.Trainer) -> ScheduleFreeAdamW | None:
        """Returns the optimizer that keeps the average, if one is to.

        Raises:
            ValueError: If what is asked for is not there, or what is there is not asked for.
        """
        keep = [one for one in trainer.optimizers if isinstance(one, ScheduleFreeAdamW)]
        if self.decay is None and len(keep) == len(trainer.optimizers) == 1:
            return keep[0]
        if self.decay is None:
            name = type(trainer.optimizers[0]).__name__
            raise ValueError(f"ema.decay: null; expected a number, as {name} keeps no average")
        if keep:
            raise ValueError(
                f"ema.decay: {self.decay}; expected null, the average that ScheduleFreeAdamW keeps"
            )
        return None

    @contextmanager
    def averaged(self, module: L.LightningModule) -> Iterator[None]:
        """Puts the average in place for a while; does nothing where it already is."""
        outer = self.swapped
        self._swap(module, True)
        try:
            yield
        finally:
            self._swap(module, outer)

    def _swap(self, module: L.LightningModule, averaged: bool) -> None:
        if averaged == self.swapped or not self.average:
            return
        self._renew()
        trained = self._trained(module)
        for name, other in self.average.items():
            trained[name].data, self.average[name] = other, trained[name].data
        self.swapped = averaged

    def _trained(self, module: L.LightningModule) -> dict[str, torch.nn.Parameter]:
        return {k: p for k, p in module.named_parameters() if p.requires_grad}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Average in."""
        self._swap(pl_module, True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Average out; checkpoint callbacks come later."""
        self._swap(pl_module, False)

    # After `fit` in the same process; with a checkpoint's weights there is nothing to swap.
    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Average out, before anything is saved."""
        self._swap(pl_module, False)

    def save(self, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts θ̄ into the checkpoint's state_dict and θ beside it."""
        if not self.average:
            return
        self._renew()
        weights = checkpoint["state_dict"]
        here, other = {k: weights[k] for k in self.average}, dict(self.average)
        average, raw = (here, other) if self.swapped else (other, here)
        checkpoint["state_dict"] = {**weights, **average}
        checkpoint[RAW], checkpoint[STEPS] = raw, self.steps

    def restore(self, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes θ̄ out of a checkpoint and puts θ back, if training goes on from it."""
        if not module.trainer.training:
            self.average = {}  # of weights that the checkpoint's are about to replace
            return
        if RAW not in checkpoint:
            return
        weights, raw = checkpoint["state_dict"], checkpoint[RAW]
        if self.decay != 0:
            self.average = {k: weights[k].clone() for k in raw}
            self.steps = checkpoint[STEPS]
        checkpoint["state_dict"] = {**weights, **raw}
