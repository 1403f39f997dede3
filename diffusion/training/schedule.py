"""Learning-rate schedules that YAML can name and that torch.optim has not."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from diffusion.counts import check_counts


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
