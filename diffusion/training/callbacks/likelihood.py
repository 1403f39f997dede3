"""Bits per dimension of held-out data, split into the bound's terms."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from diffusion import bound
from diffusion.files import written_aside
from diffusion.process import Variance


class Likelihood(L.Callback):
    """After testing, the variational bound on −log p(x_0): L_T, Σ L_{t−1} and L_0 (DDPM, eq. 5).

    Every time of the process is visited for every image, so it costs n · T evaluations. Writes
    `<run>/likelihood.json` with the mean and its standard error, and the terms by t. Where data
    has grey levels the unit is bits/dim of the discrete data; for points it is that of a density.

    Args:
        n: How many test samples; 0 switches it off.
        variance: Σ of the reverse transitions.
        batch_size: Samples at once.
    """

    def __init__(self, n: int = 0, variance: Variance = "small", batch_size: int = 250) -> None:
        self.n, self.batch_size = n, batch_size
        self.variance: Variance = variance

    @torch.no_grad()
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures, each process its share of the batches."""
        if not self.n:
            return
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        terms = []
        for k, batch in enumerate(data.batches("test", self.batch_size)):
            room = self.n - k * self.batch_size
            if room <= 0:
                break
            batch = {key: v[:room].to(pl_module.device) for key, v in batch.items()}
            if k % trainer.world_size == trainer.global_rank:
                terms.append(self._terms(pl_module, batch, data.levels, k))
            else:  # another process fills these rows in
                terms.append(batch["image"].new_zeros(len(batch["image"]), terms_of(pl_module)))
        every: Any = trainer.strategy.reduce(torch.cat(terms), reduce_op="sum")
        self._report(trainer, pl_module, every.double().cpu())

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

    def _report(self, trainer: L.Trainer, module: L.LightningModule, terms: Tensor) -> None:
        total = terms.sum(1)
        figures = {
            "bits_per_dim": total.mean().item(),
            "L_T": terms[:, -1].mean().item(),
            "L_sum": terms[:, 1:-1].sum(1).mean().item(),
            "L_0": terms[:, 0].mean().item(),
        }
        module.log_dict({f"test/{k}@{len(terms)}": v for k, v in figures.items()})
        error = total.std().item() / math.sqrt(len(terms))
        by_t = terms.mean(0).tolist()
        note = {"n": len(terms), "standard_error": error, "variance": self.variance}
        if trainer.is_global_zero:
            with written_aside(Path(trainer.default_root_dir) / "likelihood.json") as aside:
                aside.write_text(json.dumps({**figures, **note, "by_t": by_t}, indent=1))


def terms_of(module: Any) -> int:
    """The number of terms of the bound: L_0 … L_T."""
    return module.process.T + 1
