"""Learning-rate schedules: one that torch.optim has not, and what any is at a given step."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from diffusion.common.validate import check_counts

NOTHING = 1e-12  # of the largest rate: what rounding leaves of 0


class Warmup(LambdaLR):
    """lr · min(1, (n + 1) / warmup), then linearly to 0 at step `total` if that is given.

    Args:
        optimizer: Whose learning rate to schedule.
        warmup: Steps of linear warm-up; DDPM has 5000.
        total: The step at which the rate reaches 0, or None to stay.

    Raises:
        ValueError: If total is not beyond the warm-up.
    """

    def __init__(self, optimizer: Optimizer, warmup: int = 0, total: int | None = None) -> None:
        check_counts("lr_scheduler", least=0, warmup=warmup)
        if total is not None and total <= warmup:
            raise ValueError(f"lr_scheduler.total: {total}; expected more than warmup = {warmup}")

        def factor(n: int) -> float:
            if n < warmup:
                return (n + 1) / warmup
            return 1.0 if total is None else max(0.0, (total - n) / (total - warmup))

        super().__init__(optimizer, factor)


def move(schedule: LRScheduler, n: int) -> None:
    """Moves a schedule on by n steps, to the very rate of n calls of its `step`."""
    if isinstance(schedule, LambdaLR) and n > 1:  # a function of the step alone
        schedule.last_epoch += n - 1
        schedule._step_count += n - 1
        n = 1
    with _without_training():
        for _ in range(n):
            schedule.step()


def most(make: Callable[[], LRScheduler], steps: int) -> int | None:
    """Returns how many steps a schedule is for, if that is less than there will be, or None.

    From there on its rate is 0 for good, it refuses to go on, as `OneCycleLR` does, or rises to
    where it began, as that of `CosineAnnealingLR` (`CosineAnnealingWarmRestarts` is meant to).

    Args:
        make: Makes the schedule, at its first step.
        steps: How many optimizer steps there will be.
    """
    schedule = make()
    if isinstance(schedule, CosineAnnealingLR):
        return schedule.T_max if steps > schedule.T_max else None
    if isinstance(schedule, LambdaLR) and steps > 1:
        move(schedule, steps - 1)
        if max(schedule.get_last_lr()) > 0:
            return None
        schedule = make()
    largest, last = 0.0, 0
    with _without_training():
        for n in range(steps):
            rate = float(max(schedule.get_last_lr()))
            largest = max(largest, rate)
            last = n + 1 if rate > NOTHING * largest else last
            try:
                schedule.step()
            except ValueError:
                return n
    return None if last in (0, steps) else last


@contextmanager
def _without_training() -> Iterator[None]:
    """Keeps torch from saying that the optimizer has not moved: it need not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step")
        yield
