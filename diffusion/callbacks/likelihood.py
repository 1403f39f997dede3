"""Bits per dimension of held-out data, split into the bound's terms."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion import bound
from diffusion.codec import Pixels
from diffusion.common.files import written_aside
from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.guidance import Static
from diffusion.metrics.report.record import finite
from diffusion.noise import SeededNoise, Use
from diffusion.process import Variance
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.trainer import data_of

NOISE = 0  # one seed for all runs, so that two of them differ by their models alone


class Likelihood(L.Callback):
    """The variational bound on −log p(x_0) of held-out data: L_T, Σ L_{t−1} and L_0 (DDPM, eq. 5).

    Every time of the process is visited for every image, so it costs n · T evaluations. Logs each
    term and, if n > 1, the standard error of their sum as "test/…@n" and "val/…@n"; a test also
    writes `<run>/likelihood.json`, with the terms by t. Where data has grey levels the unit is
    bits/dim of the discrete data; for points it is that of a density.

    The model may be the one with x̂_0 clipped to −1 … 1, of which the papers' figures are
    (`clip_denoised` in the code of DDPM and Improved DDPM), or the one without. "clipped" in the
    file, and "_clipped" in the names of what is logged, say so.

    Args:
        n: How many test samples, evenly spaced in the split; 0 switches it off.
        variance: Σ of the reverse transitions.
        batch_size: Samples at once.
        validate: How many validation samples at each validation; 0 for none.
        clip: Whether x̂_0 is clipped. By default it is, except where published code does not clip
            either: points have no range, and a network that puts out a mean gives p's mean itself.

    Raises:
        ValueError: If a number is negative, or the batch size is not positive.
    """

    def __init__(
        self,
        n: int = 0,
        variance: Variance = "small",
        batch_size: int = 250,
        validate: int = 0,
        clip: bool | None = None,
    ) -> None:
        check_counts("likelihood", least=0, n=n, validate=validate)
        check_counts("likelihood", batch_size=batch_size)
        self.n, self.batch_size, self.validate, self.clip = n, batch_size, validate, clip
        self.variance: Variance = variance

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses to clip what must not be clipped.

        Raises:
            ValueError: If it is to clip where there is no range, or the network puts out a mean.
        """
        data = data_of(trainer)
        if (self.n or self.validate) and data is not None and isinstance(pl_module, Diffusion):
            self._clips(pl_module, data)

    def _clips(self, module: Diffusion, data: Images) -> bool:
        """Returns whether x̂_0 is clipped."""
        if not isinstance(module.codec, Pixels):
            raise ValueError(
                f"likelihood: {type(module.codec).__name__} is what is diffused; expected Pixels, "
                "as the bound is of the data, or likelihood.n 0"
            )
        parameterization = module.denoiser.parameterization
        reason = "points have no range" if data.levels is None else None
        if not parameterization.clippable:
            reason = f"{type(parameterization).__name__} must not be clipped"
        if self.clip and reason:
            raise ValueError(f"likelihood.clip: true; expected false or null, {reason}")
        return reason is None if self.clip is None else self.clip

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures some of the validation data, if asked to."""
        if self.validate and not trainer.sanity_checking and isinstance(pl_module, Diffusion):
            self._measure(trainer, pl_module, "val", self.validate)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the test data, and writes what it found."""
        if self.n and isinstance(pl_module, Diffusion):
            found = self._measure(trainer, pl_module, "test", self.n)
            if trainer.is_global_zero:
                with written_aside(Path(trainer.default_root_dir) / "likelihood.json") as aside:
                    aside.write_text(json.dumps(finite(found), indent=1, allow_nan=False))

    @torch.no_grad()
    def _measure(self, trainer: L.Trainer, module: Diffusion, split: str, n: int) -> dict[str, Any]:
        """Returns, and logs, the means over n samples, of which each process measures its share."""
        data, rows = data_of(trainer), []
        clipped = self._clips(module, data)
        for k, batch in enumerate(data.batches(split, self.batch_size, n)):
            if k % trainer.world_size == trainer.global_rank:
                batch = move_data_to_device(batch, module.device)
                index = range(k * self.batch_size, k * self.batch_size + len(batch["image"]))
                rows.append(self._terms(module, batch, index, clipped, data.levels))
            else:  # another process fills these rows in
                empty = torch.zeros(len(batch["image"]), module.process.T + 1)
                rows.append(empty.to(module.device))
        reduced: Any = trainer.strategy.reduce(torch.cat(rows), reduce_op="sum")
        terms = reduced.double().cpu()
        about = {"n": len(terms), "variance": self.variance, "clipped": clipped}
        figures = self._log(module, split, terms, clipped)
        return {**figures, **about, "by_t": terms.mean(0).tolist()}

    def _terms(
        self,
        module: Diffusion,
        batch: dict[str, Tensor],
        index: Sequence[int],
        clipped: bool,
        levels: int | None,
    ) -> Tensor:
        """Returns L_0, L_1 … L_{T−1} and L_T of each sample, (B, T + 1), in bits/dim."""
        x_0, process = batch["image"], module.process
        noise = SeededNoise(NOISE, index, x_0.device, Use.LIKELIHOOD)  # the same in any batch
        cond = module.network_condition({**batch, "noise": noise})
        denoise = Static()(module.denoiser) if clipped else module.denoiser
        columns = []
        for time in range(1, process.T + 1):
            t = torch.full((len(x_0),), time, device=x_0.device)
            pred = denoise(process.diffuse(x_0, t, noise(x_0)), t, cond)
            columns.append(bound.term(pred, process, x_0, t, self.variance, levels))
        return torch.stack([*columns, bound.prior_term(process, x_0)], 1)

    def _log(
        self, module: L.LightningModule, prefix: str, terms: Tensor, clipped: bool
    ) -> dict[str, float]:
        """Logs the means over the samples, and returns them."""
        total, n = terms.sum(1), len(terms)
        figures = {
            "bits_per_dim": total.mean().item(),
            "L_T": terms[:, -1].mean().item(),
            "L_sum": terms[:, 1:-1].sum(1).mean().item(),
            "L_0": terms[:, 0].mean().item(),
        }
        if n > 1:  # of one sample there is none
            figures["standard_error"] = total.std().item() / math.sqrt(n)
        names = {"standard_error": "bits_per_dim_standard_error"}
        end = f"{'_clipped' if clipped else ''}@{n}"
        module.log_dict({f"{prefix}/{names.get(k, k)}{end}": v for k, v in figures.items()})
        return figures
