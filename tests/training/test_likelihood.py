import csv
import json
import math
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from exact import Gaussian

from diffusion.data import SwissRoll
from diffusion.data.memory import Memory
from diffusion.objective import Simple
from diffusion.parameterization import X0
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDPM
from diffusion.training.callbacks.likelihood import Likelihood
from diffusion.training.module import Diffusion

MEAN, STD, T = 0.7, 0.3, 30


class Points(SwissRoll):
    """x_0 ~ N(m, c² I) in two dimensions."""

    def _draw(self, number):
        noise = torch.randn(self.points, 2, generator=torch.Generator().manual_seed(number))
        return Memory(MEAN + STD * noise)


class Exact(torch.nn.Module):
    """The mean and the variance of x_s given x_t that the Gaussian really has."""

    def __init__(self, process):
        super().__init__()
        self.gaussian = Gaussian(process, MEAN, STD)
        times = range(1, process.T + 1)
        true = [math.log(self.gaussian.reverse_variance(t, t - 1)) for t in times]
        zeros = torch.zeros(process.T, 1)
        t = torch.arange(1, process.T + 1)
        small, large = (
            process.reverse_log_variance(t, t - 1, zeros, v, torch.ones_like(zeros)).flatten()
            for v in ("small", "learned")
        )
        self.v = (torch.tensor(true) - small) / (large - small)

    def forward(self, x_t, t):
        v = self.v[t - 1].reshape(-1, 1).expand_as(x_t)
        return torch.cat([self.gaussian(x_t, t).x_0, 2 * v - 1], 1)


def test_it_is_the_entropy_of_a_gaussian(tmp_path):
    """A Gaussian's reverse transitions are Gaussian, so the bound is −log p(x_0) itself, at any T.

    Its mean is the entropy ½ log₂(2πe c²), up to KL(q(x_T) ‖ N(0, I)), which is 10⁻⁵ here.
    """
    process = Cosine(T)
    parts = (Exact(process), process, X0(), Simple(), Sampler(DDPM()))
    module, data = Diffusion(*parts), Points(points=600, samples=4)
    callback = Likelihood(n=600, variance="learned", batch_size=250, validate=100)
    trainer = L.Trainer(
        default_root_dir=tmp_path, callbacks=[callback], accelerator="cpu", devices=1,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=1, limit_test_batches=1, inference_mode=False,
    )  # fmt: skip
    trainer.test(module, data, verbose=False)
    found = json.loads((tmp_path / "likelihood.json").read_text())
    entropy = 0.5 * math.log2(2 * math.pi * math.e * STD**2)
    assert abs(found["bits_per_dim"] - entropy) < 4 * found["standard_error"]
    # −log p of one point varies by √½ nats a dimension; two dimensions are averaged, and the
    # noise of the terms comes on top.
    least = math.sqrt(0.5 / 2 / 600) / math.log(2)
    assert least * 0.9 < found["standard_error"] < 4 * least
    assert found["L_T"] == pytest.approx(0, abs=1e-3)
    trainer.validate(module, data, verbose=False)
    metrics = {k: v.item() for k, v in trainer.callback_metrics.items()}
    assert (
        abs(metrics["val/bits_per_dim@100"] - entropy)
        < 4 * (metrics["val/bits_per_dim_standard_error@100"])
    )
    parts = [metrics[f"val/{k}@100"] for k in ("L_T", "L_sum", "L_0")]
    assert metrics["val/bits_per_dim@100"] == pytest.approx(sum(parts), abs=1e-5)


def test_the_bound_is_the_sum_of_its_terms(run, fitted, monkeypatch):
    totals = []
    log = Likelihood._log

    def spy(self, module, prefix, terms):
        totals.append(terms)
        return log(self, module, prefix, terms)

    monkeypatch.setattr(Likelihood, "_log", spy)
    flags = ("--likelihood.n=25", "--likelihood.batch_size=10", "--metrics.n=2")
    run("test", "--ckpt_path", fitted.last, *flags)
    note = json.loads((run.folder / "run/likelihood.json").read_text())
    (terms,) = totals
    assert terms.shape == (25, 21)
    parts = note["L_T"] + note["L_sum"] + note["L_0"]
    assert note["bits_per_dim"] == pytest.approx(parts) == pytest.approx(sum(note["by_t"]))
    error = terms.sum(1).std().item() / math.sqrt(25)
    assert note["standard_error"] == pytest.approx(error)
    assert note["n"] == 25


def test_validation_measures_while_training(run):
    run.fit("--likelihood.validate=6", "--trainer.val_check_interval=2")
    (path,) = (run.folder / "run").rglob("metrics.csv")
    rows = [row for row in csv.DictReader(path.open()) if row.get("val/bits_per_dim@6")]
    assert len(rows) == 2
    for row in rows:
        parts = sum(float(row[f"val/{k}@6"]) for k in ("L_T", "L_sum", "L_0"))
        assert float(row["val/bits_per_dim@6"]) == pytest.approx(parts, rel=1e-5)
        assert float(row["val/bits_per_dim_standard_error@6"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, r"likelihood\.n: -1; expected at least 0"),
        ({"batch_size": 0}, r"likelihood\.batch_size: 0; expected at least 1"),
        ({"validate": -2}, r"likelihood\.validate: -2; expected at least 0"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Likelihood(**arguments)


def test_one_sample_has_no_standard_error(tmp_path):
    logged = {}
    module: Any = SimpleNamespace(log_dict=logged.update)
    likelihood, terms = Likelihood(n=1), torch.ones(1, 4)
    figures = likelihood._log(module, "test", terms)
    likelihood._write(tmp_path / "a.json", figures, terms)
    note = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert note["bits_per_dim"] == logged["test/bits_per_dim@1"] == 4
    assert "standard_error" not in note
    assert not any("error" in name for name in logged)
