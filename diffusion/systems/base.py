# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false
"""What every trained module has in common: an optimizer, averages, and randomness by the step."""

import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import (
    LightningOptimizer,
    _init_optimizers_and_lr_schedulers,
    do_nothing_closure,
)
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from diffusion.common import weights
from diffusion.common.files import kept
from diffusion.data import Images
from diffusion.metrics.report.record import write_record
from diffusion.networks import TextEncoder
from diffusion.noise import SeededNoise, Use, seed
from diffusion.spec import DATA, DataSpec
from diffusion.systems.averages import EMA
from diffusion.systems.checkpoints.agreement import agree
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.checkpoints.resume import adopt
from diffusion.systems.checkpoints.start import KEY, begin
from diffusion.systems.fused import fused, lay_out
from diffusion.systems.trainer import callbacks_of, check_schedule, check_stage, data_of

GOLDEN_RATIO = 0.6180339887498949
Module = TypeVar("Module", bound=nn.Module)


class StepOutput(TypedDict):
    """What a `training_step` returns, which callbacks read.

    Attributes:
        loss: The mean, which is differentiated.
        losses: Of each sample, (B,).
        t: The time of each sample, where there are times.
        hits: Whether each sample was told apart rightly, by what tells samples apart.
    """

    loss: Tensor
    losses: Tensor
    t: NotRequired[Tensor]
    hits: NotRequired[Tensor]


class System(Restorable, ABC):
    """What can be trained: its checkpoints hold averaged weights and rebuild it.

    A system with several optimizers sets `automatic_optimization = False`, returns them from
    `configure_optimizers`, and moves them in its `training_step`, the first one once: that counts
    as the training's step, for `trainer.max_steps`, averages, checkpoints, and the step's noise.

    Args:
        optimizer: From parameters to an optimizer; see `fused`.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: A checkpoint whose averaged weights training starts from, see `begin`; None for
            initial ones. Not needed to resume or to load the result.

    Attributes:
        spec: What it was trained on, as its checkpoint says; None until there is a data module.
        process: Its forward process, if it has one.
    """

    spec: DataSpec | None = None
    process: Any = None

    def __init__(
        self,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        start: str | None = None,
    ) -> None:
        super().__init__()
        # Through the command line these are plain class paths; live objects built in Python would
        # put the weights into the checkpoint a second time, as a pickle.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            self.hparams.clear()
        self.optimizer: OptimizerCallable = partial(fused, optimizer)
        self.lr_scheduler, self.start = lr_scheduler, start
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))

    @property
    def T(self) -> int | None:
        """The last time t of its forward process, if it has one."""
        return self.process and self.process.T

    @property
    def reads_labels(self) -> bool:
        """Whether it matters which number a class has."""
        return True

    @property
    def reads_texts(self) -> bool:
        """Whether it reads the texts of a batch."""
        return any(isinstance(part, TextEncoder) for part in self.modules())

    def setup(self, stage: str) -> None:
        """Refuses data that does not fit, before anything is trained or drawn.

        Data that only a checkpoint knows waits for `on_load_checkpoint`.
        """
        self.check_data(stage)
        data, known = self._data(), self.expects or self.spec
        if data is not None and (known is not None or data.is_known):
            self.check(data)
            self.spec = data.spec

    def check_data(self, stage: str) -> None:
        """Refuses other data than a checkpoint's, as far as that is known."""
        data, known = self._data(), self.expects or self.spec
        if data is not None and known is not None:
            self._compare(known, data, beginning=stage == "fit" and self.expects is None)

    @abstractmethod
    def check(self, data: Images) -> None:
        """Refuses data that does not fit.

        Raises:
            ValueError: If it does not.
        """

    def _data(self) -> Images | None:
        data = data_of(self._trainer)
        return data if isinstance(data, Images) else None

    def on_fit_start(self) -> None:
        """Starts from another model's weights, unless a checkpoint has just brought this one's.

        Raises:
            ValueError: If the schedule is for fewer steps than there will be.
        """
        check_schedule(self.trainer, self.optimizer, self.lr_scheduler)
        if self.start is not None:
            spec, data = begin(self, Path(self.start).expanduser()), self._data()
            if spec is not None and data is not None:
                agree(spec, data, self.reads_labels, beginning=True)

    def check_start(self, path: str | None) -> None:
        """Reads the weights that training starts from, and makes the optimizers, once.

        So that what is wrong with them is known before anything is prepared.

        Args:
            path: What `--ckpt_path` says; with a checkpoint, training does not start from others.

        Raises:
            ValueError: If an optimizer or a schedule refuses its options, or the weights are none.
            FileNotFoundError: If there are no such weights.
        """
        if path is None and self.start is not None:
            weights.read(Path(self.start).expanduser(), KEY)
        try:
            self.configure_optimizers()
        except (TypeError, ValueError) as error:
            if re.match(r"[\w.]+: .*expected", str(error)):
                raise
            raise ValueError(f"model.optimizer: {error}; expected options that it takes") from error

    def step_noise(self, batch_idx: int, n: int, device: torch.device | None = None) -> SeededNoise:
        """Returns the noise of a training step's n samples, which a resumed run draws again.

        The samples of a step are numbered as they are read, so any number of processes and any
        accumulation draw what one process with the whole batch draws, if all batches have n.

        PyTorch's own generators, by which networks forget activations, are seeded with the step,
        the process and the part of the step.

        Args:
            batch_idx: The batch's number.
            n: Samples of this process.
            device: Where numbers are drawn: the CPU if it is what reads them, which would wait for
                another; by default this module's.
        """
        step, world = self.trainer.global_step, self.trainer.world_size
        part = batch_idx % self.trainer.accumulate_grad_batches
        number = seed(self.seed, self.global_rank, step, part)
        if self.device.type == "cpu":  # `torch.manual_seed` asks every kind of device, for 1 ms
            torch.default_generator.manual_seed(number)
        else:
            torch.manual_seed(number)
        first = (step << 32) + part * n * world + self.global_rank
        numbers = range(first, first + n * world, world)
        return SeededNoise(self.seed, numbers, device or self.device, Use.TRAINING)

    def fixed_noise(self, batch_idx: int, n: int) -> SeededNoise:
        """Returns the noise of an evaluation's n samples, the same every time and for any seed."""
        first = self.number(batch_idx) << 32
        return SeededNoise(0, range(first, first + n), self.device, Use.EVALUATION)

    def number(self, batch_idx: int) -> int:
        """Returns the number of an evaluation's batch over all processes."""
        return batch_idx * self.trainer.world_size + self.global_rank

    def configure_optimizers(self) -> Any:
        """An optimizer over what is trained, and a schedule that moves once a step."""
        optimizer = self.optimizer(p for p in self.parameters() if p.requires_grad)
        if self.lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Returns the optimizer, or all of them; see `LightningModule`.

        Lightning counts the steps of every optimizer; of several, only the first one's are counted.
        """
        found = super().optimizers(use_pl_optimizer)
        for other in found[1:] if isinstance(found, list) else ():
            if isinstance(other, LightningOptimizer):
                other._on_before_step = other._on_after_step = do_nothing_closure
        return found

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lays gradients out as a fused step takes them to be."""
        lay_out(optimizer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remembers the step, to see that it is followed by the next one."""
        self._before = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Refuses to count on where a batch was several steps.

        Raises:
            ValueError: If the first optimizer moved more than once.
        """
        if (steps := self.trainer.global_step - self._before) > 1:
            raise ValueError(
                f"training_step: {steps} steps of the first optimizer; expected one, or that "
                "`configure_optimizers` returns first an optimizer that moves once, and "
                "`self.optimizers()` is called in every training_step"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Averaged weights are what a checkpoint is for; the raw ones go beside them."""
        if self.spec is not None:
            checkpoint[DATA] = self.spec.plain()
        for ema in self._averages():
            ema.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the raw weights back where training goes on, with the options of today.

        Data that the checkpoint was not trained on is refused.

        Raises:
            ValueError: If the checkpoint's optimizer is of another model, or missing.
        """
        self.start = None
        for ema in self._averages():
            ema.restore(self, checkpoint)
        spec, data = DataSpec.read(checkpoint), self._data()
        self.expects = None
        if data is None:
            self.spec = spec
        else:
            waited = not data.is_known
            if spec is not None:
                self._compare(spec, data)
            if waited:
                self.check(data)
            self.spec = data.spec
        if self._trainer is not None and self._trainer.training:
            adopt(checkpoint, *_init_optimizers_and_lr_schedulers(self))

    def _compare(self, spec: DataSpec, data: Images, beginning: bool = False) -> None:
        """Compares the data with a checkpoint's; an imported one may be trained on other data."""
        imported = spec.name is None and self.trainer.state.fn == TrainerFn.FITTING
        agree(spec, data, self.reads_labels, beginning or imported)

    def _averages(self) -> list[EMA]:
        callbacks = callbacks_of(self._trainer) if self._trainer is not None else []
        return [c for c in callbacks if isinstance(c, EMA)]


class Scoring(System):
    """A module that draws no samples.

    Attributes:
        instead: What to use it for, beside being tested.
    """

    instead = "a diffusion model that it guides"

    def setup(self, stage: str) -> None:
        """Refuses data that does not fit, before anything is trained."""
        if stage == "predict":
            raise ValueError(
                f"predict: a {type(self).__name__} draws no samples; expected `diffusion test`, or "
                f"{self.instead}"
            )
        check_stage(self.trainer, stage)
        super().setup(stage)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        """Never called: `setup` refuses to predict, once Lightning has seen this method."""
        raise NotImplementedError

    def log_figures(self, figures: Mapping[str, float], *shown: str) -> None:
        """Logs figures over all processes, some of them also in the progress bar."""
        for name, value in figures.items():
            self.log(name, value, sync_dist=True, prog_bar=name in shown)

    def report(
        self,
        record: Mapping[str, Any],
        name: str,
        picture: str,
        plot: Callable[[Mapping[str, Any], Path], None],
    ) -> None:
        """Logs what a test found, and writes it to the run's folder.

        Args:
            record: What was found, with "figures".
            name: Of the JSON file.
            picture: Of the PNG file.
            plot: Draws a record to a file.
        """
        self.log_figures({f"test/{k}": v for k, v in record["figures"].items()})
        if self.trainer.is_global_zero:
            run = Path(self.trainer.default_root_dir)
            write_record(run / name, {**record, "data": self.spec and self.spec.plain()})
            with kept(run / picture) as part:
                plot(record, part)


def spread_times(n: int, number: int, T: int) -> Tensor:
    """Returns the times of an evaluation's batch, (n,): all batches' spread evenly over 1 … T.

    Args:
        n: Samples of the batch.
        number: The batch's.
        T: The last time.
    """
    i = torch.arange(n, dtype=torch.float64) + number * n
    return 1 + ((i + 0.5) * GOLDEN_RATIO % 1 * T).long()


def channels_last(network: Module) -> Module:
    """Returns a network whose convolutions read channels last, which is faster."""
    to: Any = network.to  # PyTorch's types do not have this argument
    return to(memory_format=torch.channels_last)
