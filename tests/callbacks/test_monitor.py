"""What Monitor makes of a module that is no diffusion model."""

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from diffusion.callbacks.monitor import Monitor, NotFinite


class Timeless(L.LightningModule):
    """One weight, whose loss in step k is k, or NaN from a step on."""

    def __init__(self, bad=99):
        super().__init__()
        self.weight, self.bad = torch.nn.Parameter(torch.zeros(1)), bad

    def training_step(self, batch, batch_idx):
        value = torch.nan if self.global_step >= self.bad else float(self.global_step)
        losses = self.weight * 0 + torch.full((4,), value)
        return {"loss": losses.mean(), "losses": losses.detach()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, folder: Path):
    logger = CSVLogger(folder)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=4, log_every_n_steps=2, callbacks=[Monitor()], logger=logger,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(8, 1)))
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_outputs_need_no_time(tmp_path):
    rows = fit(Timeless(), tmp_path)
    assert [float(row["train/loss"]) for row in rows] == [0.5, 2.5]
    assert not [name for name in rows[0] if name.startswith("train/loss_q")]
    assert float(rows[-1]["train/images"]) == 16


def test_a_loss_without_a_time_that_is_not_finite_stops_too(tmp_path):
    with pytest.raises(NotFinite, match=r"since step 3; nothing was saved"):
        fit(Timeless(bad=2), tmp_path)
