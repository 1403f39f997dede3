"""Bits per dimension of held-out data, split into the bound's terms."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion import bound
from diffusion.counts import check_counts
from diffusion.files import written_aside
from diffusion.process import Variance


class Likelihood(L.Callback):
    """The variational bound on −log p(x_0) of held-out data: L_T, Σ L_{t−1} and L_0 (DDPM, eq. 5).

    Every time of the process is visited for every image, so it costs n · T evaluations. Logs each
    term and the standard error of their sum as "test/…@n" and "val/…@n"; a test also writes
    `<run>/likelihood.json`, with the terms by t. Where data has grey levels the unit is bits/dim of
    the discrete data; for points it is that of a density.

    Args:
        n: How many test samples; 0 switches it off.
        variance: Σ of the reverse transitions.
        batch_size: Samples at once.
        validate: How many validation samples at each validation; 0 for none.

    Raises:
        ValueError: If a number is negative, or the batch size is not positive.
    """

    def __init__(
        self, n: int = 0, variance: Variance = "small", batch_size: int = 250, validate: int = 0
    ) -> None:
        check_counts("likelihood", least=0, n=n, validate=validate)
        check_counts("likelihood", batch_size=batch_size)
        self.n, self.batch_size, self.validate = n, batch_size, validate
        self.variance: Variance = variance

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures some of the validation data, if asked to."""
        if self.validate and not trainer.sanity_checking and hasattr(pl_module, "denoiser"):
            self._log(pl_module, "val", self._measure(trainer, pl_module, "val", self.validate))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the test data, and writes what it found."""
        if self.n and hasattr(pl_module, "denoiser"):
            terms = self._measure(trainer, pl_module, "test", self.n)
            figures = self._log(pl_module, "test", terms)
            if trainer.is_global_zero:
                self._write(Path(trainer.default_root_dir) / "likelihood.json", figures, terms)

    @torch.no_grad()
    def _measure(self, trainer: L.Trainer, pl_module: Any, split: str, n: int) -> Tensor:
        """Returns the terms of n samples, (n, T + 1), each process having done its share."""
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        terms = []
        for k, batch in enumerate(data.batches(split, self.batch_size)):
            room = n - k * self.batch_size
            if room <= 0:
                break
            batch = {key: v[:room] for key, v in batch.items()}
            batch = move_data_to_device(batch, pl_module.device)
            if k % trainer.world_size == trainer.global_rank:
                terms.append(self._terms(pl_module, batch, data.levels, k))
            else:  # another process fills these rows in
                terms.append(batch["image"].new_zeros(len(batch["image"]), terms_of(pl_module)))
        every: Any = trainer.strategy.reduce(torch.cat(terms), reduce_op="sum")
        return every.double().cpu()

    def _terms(self, module: Any, batch: dict[str, Tensor], levels: int | None, k: int) -> Tensor:
        """Returns L_0, L_1 … L_{T−1} and L_T of each sample, (B, T + 1), in bits/dim."""
        x_0, process, cond = batch["image"], module.process, module.condition(batch)
        generator = torch.Generator().manual_seed(k)
        columns = []
        for time in range(1, process.T + 1):
            t = torch.full((len(x_0),), time, device=x_0.device)
            eps = torch.randn(x_0.shape, generator=generator).to(x_0)
            pred = module.denoiser(process.diffuse(x_0, t, eps), t, cond)
            columns.append(bound.term(pred, process, x_0, t, self.variance, levels))
        return torch.stack([*columns, bound.prior_term(process, x_0)], 1)

    def _log(self, module: L.LightningModule, prefix: str, terms: Tensor) -> dict[str, float]:
        """Logs the means over the samples, and returns them."""
        total = terms.sum(1)
        figures = {
            "bits_per_dim": total.mean().item(),
            "L_T": terms[:, -1].mean().item(),
            "L_sum": terms[:, 1:-1].sum(1).mean().item(),
            "L_0": terms[:, 0].mean().item(),
            "standard_error": total.std().item() / math.sqrt(len(terms)),
        }
        names = {"standard_error": "bits_per_dim_standard_error"}
        at = f"@{len(terms)}"
        logged = {f"{prefix}/{names.get(k, k)}{at}": v for k, v in figures.items()}
        module.log_dict(logged)
        return figures

    def _write(self, path: Path, figures: dict[str, float], terms: Tensor) -> None:
        note = {"n": len(terms), "variance": self.variance, "by_t": terms.mean(0).tolist()}
        with written_aside(path) as aside:
            aside.write_text(json.dumps({**figures, **note}, indent=1))


def terms_of(module: Any) -> int:
    """The number of terms of the bound: L_0 … L_T."""
    return module.process.T + 1
