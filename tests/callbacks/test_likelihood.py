import csv
import json
import math
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from exact import Gaussian
from scipy.special import ndtr

from diffusion.callbacks.likelihood import Likelihood
from diffusion.data import Digits, SwissRoll
from diffusion.data.sets import Memory
from diffusion.noise import SeededNoise, Use
from diffusion.objective import Simple
from diffusion.parameterization import X0, Eps, Mean, MeanShift
from diffusion.process import Cosine, Linear
from diffusion.sampler import Sampler
from diffusion.step import DDPM
from diffusion.systems.diffusion import Diffusion

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


def trained_by(callback, folder):
    return L.Trainer(
        default_root_dir=folder, callbacks=[callback], accelerator="cpu", devices=1,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=1, limit_test_batches=1, inference_mode=False,
    )  # fmt: skip


def test_it_is_the_entropy_of_a_gaussian(tmp_path):
    """A Gaussian's reverse transitions are Gaussian, so the bound is −log p(x_0) itself, at any T.

    Its mean is the entropy ½ log₂(2πe c²), up to KL(q(x_T) ‖ N(0, I)), which is 10⁻⁵ here.
    """
    process = Cosine(T)
    parts = (Exact(process), process, X0(), Simple(), Sampler(DDPM()))
    module, data = Diffusion(*parts), Points(points=600, samples=4)
    callback = Likelihood(n=600, variance="learned", batch_size=250, validate=100)
    trainer = trained_by(callback, tmp_path)
    trainer.test(module, data, verbose=False)
    found = json.loads((tmp_path / "likelihood.json").read_text())
    assert found["clipped"] is False  # points have no range
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


class Wrong(torch.nn.Module):
    """Estimates ε and v badly, so that x̂_0 often leaves the range."""

    def forward(self, x_t, t):
        return torch.cat([0.8 * x_t + 0.1, torch.sin(3 * x_t)], 1)


class Same(torch.nn.Module):
    def forward(self, x_t, t):
        return x_t


def published(x_0, noise, T, clip):
    """The bound by the formulas of the published codes, in their indices 0 … T − 1, bits/dim."""
    beta = np.linspace(1e-3, 0.2, T)
    bar = np.cumprod(1 - beta)
    before = np.append(1, bar[:-1])
    small = beta * (1 - before) / (1 - bar)
    log_small = np.log(np.append(small[1], small[1:]))
    a, b = beta * before**0.5 / (1 - bar), (1 - before) * (1 - beta) ** 0.5 / (1 - bar)
    terms = []
    for t in range(T):
        eps = noise(torch.from_numpy(x_0)).numpy()
        x_t = bar[t] ** 0.5 * x_0 + (1 - bar[t]) ** 0.5 * eps
        found = (x_t - (1 - bar[t]) ** 0.5 * (0.8 * x_t + 0.1)) / bar[t] ** 0.5
        found = found.clip(-1, 1) if clip else found
        v = (np.sin(3 * x_t) + 1) / 2
        log_p = v * np.log(beta[t]) + (1 - v) * log_small[t]
        mean, true = a[t] * found + b[t] * x_t, a[t] * x_0 + b[t] * x_t
        log_q = log_small[t]
        kl = 0.5 * (log_p - log_q - 1 + np.exp(log_q - log_p) + (true - mean) ** 2 / np.exp(log_p))
        low, high = ((x_0 + side / 16 - mean) / np.exp(log_p / 2) for side in (-1, 1))
        low, high = np.where(x_0 < -0.99, -np.inf, low), np.where(x_0 > 0.99, np.inf, high)
        mass = np.where(low + high > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
        terms.append((-np.log(mass) if t == 0 else kl).mean((1, 2, 3)) / math.log(2))
    return np.stack(terms, 1)


@pytest.mark.parametrize("clip", [True, False, None])
def test_by_default_it_is_the_published_bound_of_the_clipped_model(tmp_path, clip):
    T, data = 12, Digits(batch_size=50)
    process = Linear(T, 1e-3, 0.2)
    module = Diffusion(Wrong(), process, Eps(), Simple(), Sampler(DDPM()))
    callback = Likelihood(n=5, variance="learned", batch_size=3, clip=clip, validate=5)
    trainer = trained_by(callback, tmp_path)
    (logged,) = trainer.test(module, data, verbose=False)
    note = json.loads((tmp_path / "likelihood.json").read_text())
    x_0 = next(data.batches("test", 5, n=5))["image"].double()
    by_hand = published(
        x_0.numpy(), SeededNoise(0, range(5), use=Use.LIKELIHOOD), T, clip is not False
    )
    assert note["clipped"] is (clip is not False)
    np.testing.assert_allclose(note["by_t"][:-1], by_hand.mean(0), rtol=1e-4)
    name = "_clipped@5" if note["clipped"] else "@5"
    assert logged[f"test/bits_per_dim{name}"] == pytest.approx(note["bits_per_dim"])
    (logged,) = trainer.validate(module, data, verbose=False)
    assert f"val/bits_per_dim{name}" in logged


@pytest.mark.parametrize("of", [Mean, MeanShift])
def test_a_model_of_the_mean_is_not_clipped(tmp_path, of):
    parts = (Same(), Linear(5, 1e-3, 0.2), of(), Simple(), Sampler(DDPM()))
    module, data = Diffusion(*parts), Digits(batch_size=50)
    trained_by(Likelihood(n=3), tmp_path).test(module, data, verbose=False)
    assert json.loads((tmp_path / "likelihood.json").read_text())["clipped"] is False
    message = rf"likelihood\.clip: true; expected false or null, {of.__name__} must not be clipped"
    with pytest.raises(ValueError, match=message):
        trained_by(Likelihood(n=3, clip=True), tmp_path).test(module, data, verbose=False)


def test_points_are_not_clipped(tmp_path):
    process = Cosine(T)
    module = Diffusion(Exact(process), process, X0(), Simple(), Sampler(DDPM()))
    data = Points(points=60, samples=4)
    with pytest.raises(ValueError, match=r"clip: true; expected false or null, points have no"):
        trained_by(Likelihood(n=3, clip=True), tmp_path).test(module, data, verbose=False)


def test_the_bound_is_the_sum_of_its_terms(run, fitted, monkeypatch):
    totals = []
    log = Likelihood._log

    def spy(self, module, prefix, terms, clipped):
        totals.append(terms)
        return log(self, module, prefix, terms, clipped)

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
    total = "val/bits_per_dim_clipped@6"
    rows = [row for row in csv.DictReader(path.open()) if row.get(total)]
    assert len(rows) == 2
    for row in rows:
        parts = sum(float(row[f"val/{k}_clipped@6"]) for k in ("L_T", "L_sum", "L_0"))
        assert float(row[total]) == pytest.approx(parts, rel=1e-5)
        assert float(row["val/bits_per_dim_standard_error_clipped@6"]) > 0


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


def test_one_sample_has_no_standard_error():
    logged = {}
    module: Any = SimpleNamespace(log_dict=logged.update)
    figures = Likelihood(n=1)._log(module, "test", torch.ones(1, 4), False)
    assert figures["bits_per_dim"] == logged["test/bits_per_dim@1"] == 4
    assert "standard_error" not in figures
    assert not any("error" in name for name in logged)
