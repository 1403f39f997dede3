"""What one watches while a model trains, and when to stop at once."""

import time
from collections.abc import Mapping
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from diffusion.data import Images
from diffusion.systems.base import System
from diffusion.systems.trainer import attributes, data_of


class NotFinite(RuntimeError):
    """The loss became NaN or infinite; says where and what to go back to."""


class Monitor(L.Callback):
    """Logs, every `trainer.log_every_n_steps` steps, averages since the last time.

    train/loss, train/loss_q1 … q4 (the loss where t is in the first … last quarter of 1 … T, clean
    pictures in the first; not where there is no process or no t), for what tells classes or texts
    apart train/accuracy and train/accuracy_q1 … q4 likewise, train/grad_norm (before clipping) and
    train/lr, both of the first optimizer, train/images and train/images_per_second. Numbers stay on
    the device in between, so that the processor never waits. The loss is checked for NaN then too,
    and before anything is saved. A module whose training step returns no `StepOutput` is refused.
    """

    def __init__(self) -> None:
        self.images = 0
        self.trained = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sets the sums to zero, and goes on counting where the data does."""
        if isinstance(data := data_of(trainer), Images):
            self.images = data.position
        self.interval = attributes(trainer).log_every_n_steps
        self.sums = torch.zeros(3, 4, device=pl_module.device)  # of losses, ones, hits
        self.classifies = self.timed = False
        self.bad = torch.full((2,), -1, device=pl_module.device)  # step and t of the first bad loss
        self.trained = True
        self.grad_norm: Tensor | None = None
        self.begun: tuple[float, int] | None = None
        self.logged = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        """Measures the gradient, where the step will be logged."""
        first = optimizer is trainer.optimizers[0]
        if first and (trainer.global_step + 1) % self.interval == 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
            self.grad_norm = torch.linalg.vector_norm(torch.stack(norms))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Adds to the sums, and logs when it is time."""
        if not isinstance(outputs, Mapping) or "losses" not in outputs:
            raise ValueError(
                f"training_step: {type(outputs).__name__} without losses; expected a StepOutput, "
                "such as {'loss': loss, 'losses': losses}"
            )
        losses, T = outputs["losses"], pl_module.T if isinstance(pl_module, System) else None
        self.timed, self.classifies = T is not None and "t" in outputs, "hits" in outputs
        t = outputs["t"] if self.timed else torch.zeros_like(losses, dtype=torch.int64)
        hits = outputs.get("hits", torch.zeros_like(losses))
        quarter = (t - 1).clamp(min=0) * 4 // (T or 4)
        rows = torch.stack([losses.float(), torch.ones_like(losses).float(), hits.float()])
        self.sums.index_add_(1, quarter, rows)
        wrong = ~losses.isfinite()
        at = t.gather(0, wrong.int().argmax(0, keepdim=True))  # as an index, a GPU would be read
        first = torch.cat([torch.full_like(at, trainer.global_step), at])
        self.bad = torch.where((self.bad[0] < 0) & wrong.any(), first, self.bad)
        self.images += len(losses) * trainer.world_size
        if self.begun is None:  # the first batch is slow and does not count
            self.begun = (time.perf_counter(), self.images)
        step = trainer.global_step  # the same for all micro-batches of a step but the last
        if step % self.interval == 0 and step != self.logged:
            self.logged = step
            self._log(trainer, pl_module)

    def _log(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # Of all processes, so that all stop together: one alone would leave the others waiting.
        bad = trainer.strategy.all_gather(self.bad).reshape(-1, 2)
        self._check(trainer, bad[bad[:, 0].argmax()])
        reduced: Any = trainer.strategy.reduce(self.sums.clone(), reduce_op="sum")
        sums, counts, hits = reduced.tolist()
        self.sums.zero_()
        now, (then, images) = time.perf_counter(), self.begun or (0.0, self.images)
        if sum(counts) == 0:
            return
        figures = {
            "train/loss": sum(sums) / sum(counts),
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/images": float(self.images),
        }
        if self.classifies:
            figures["train/accuracy"] = sum(hits) / sum(counts)
        for i, (total, count, right) in enumerate(zip(sums, counts, hits), 1):
            if count and self.timed:
                figures[f"train/loss_q{i}"] = total / count
            if count and self.timed and self.classifies:
                figures[f"train/accuracy_q{i}"] = right / count
        if self.grad_norm is not None:
            figures["train/grad_norm"] = self.grad_norm.item()
        if self.images > images:
            figures["train/images_per_second"] = (self.images - images) / (now - then)
            module.log("img/s", figures["train/images_per_second"], prog_bar=True, logger=False)
        module.log("loss", figures["train/loss"], prog_bar=True, logger=False)
        self.begun = (now, self.images)
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)

    def _check(self, trainer: L.Trainer, bad: Tensor) -> None:
        step, t = bad.tolist()
        if step >= 0:
            when = f" (at t = {t})" if self.timed else ""
            self._stop(trainer, f"the loss is not finite since step {step}{when}")

    def _stop(self, trainer: L.Trainer, what: str) -> NoReturn:
        # Not best_model_path, which is set before the file is written.
        callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        saved = [callback._last_checkpoint_saved for callback in callbacks]
        last = next(filter(None, saved), None) or trainer.ckpt_path
        good = f"the last good checkpoint is {last}" if last else "nothing was saved before"
        raise NotFinite(f"{what}; {good}")

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuses to save weights that a NaN has gone through."""
        if self.trained:
            self._check(trainer, self.bad)
            norms = torch.stack(torch._foreach_norm([p.detach() for p in pl_module.parameters()]))
            if not norms.isfinite().all():
                self._stop(trainer, f"the weights are not finite after step {trainer.global_step}")

    def state_dict(self) -> dict[str, Any]:
        """How many images were seen."""
        return {"images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the count.

        Raises:
            ValueError: If it is no count.
        """
        if not isinstance(images := state_dict.get("images"), int):
            raise ValueError(f"ckpt_path: {images!r:.40} images; expected how many were seen")
        self.images = images
