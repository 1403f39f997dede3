"""How well noisy samples are classified, by the time t: sums, figures, a picture."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.process import Process


class AccuracyTally:
    """Sums of losses and of hits in bins, on the device, so that no batch waits for them.

    Args:
        bins: How many.
        device: Where.
    """

    def __init__(self, bins: int, device: torch.device) -> None:
        self.sums = torch.zeros(3, bins, device=device)

    def add(self, bin: Tensor, losses: Tensor, hits: Tensor) -> None:
        """Adds samples.

        Args:
            bin: The bin of each, shape (B,), int64.
            losses: The loss of each, shape (B,).
            hits: Whether each was classified rightly, shape (B,).
        """
        ones = torch.ones_like(losses)
        self.sums.index_add_(1, bin, torch.stack([losses, hits.to(losses), ones]).float())

    def means(self, strategy: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Returns loss, accuracy and number of samples of each bin, over all processes; NaN of 0.

        Args:
            strategy: The Trainer's.
        """
        losses, hits, counts = strategy.reduce(self.sums.clone(), reduce_op="sum").double().cpu()
        return losses / counts, hits / counts, counts


def quarters(t: Tensor, T: int) -> Tensor:
    """Returns which quarter of 1 … T a time is in, 0 … 3."""
    return (t - 1) * 4 // T


def by_quarter(name: str, means: Tensor, counts: Tensor) -> dict[str, float]:
    """Returns {name: the mean over all, name_q1 … name_q4: over each quarter that has samples}."""
    there = counts > 0
    figures = {name: (means[there] * counts[there]).sum().item() / counts.sum().item()}
    for i in range(4):
        if there[i]:
            figures[f"{name}_q{i + 1}"] = means[i].item()
    return figures


def by_time(
    process: Process, times: Tensor, loss: Tensor, hits: Tensor, counts: Tensor, chance: float
) -> dict[str, Any]:
    """Returns what a test found, as JSON can hold it.

    "figures" are means over 1 … T and its quarters; lists go along "t", without the times that no
    sample was seen at; log SNR = log(α_t² / σ_t²) is None where α_t = 0.

    Args:
        process: The forward process.
        times: Shape (N,), on the CPU.
        loss: The mean at each time, float64, like the following on the CPU.
        hits: The accuracy at each time.
        counts: The number of samples at each time.
        chance: The accuracy of a guess.
    """
    there = counts > 0
    times, loss, hits, counts = (x[there] for x in (times, loss, hits, counts))
    quarter = torch.nn.functional.one_hot(quarters(times, process.T), 4).double()
    sums = [(x * counts) @ quarter for x in (loss, hits)]
    in_quarter = counts @ quarter
    quarterly = [x / in_quarter for x in sums]
    return {
        "figures": {
            "loss": by_quarter("loss", quarterly[0], in_quarter)["loss"],
            **by_quarter("accuracy", quarterly[1], in_quarter),
        },
        "chance": chance,
        "T": process.T,
        "t": times.tolist(),
        "log_snr": log_snr(process, times),
        "accuracy": hits.tolist(),
        "standard_error": (hits * (1 - hits) / counts).sqrt().tolist(),
        "loss": loss.tolist(),
        "n": counts.long().tolist(),
    }


def log_snr(process: Process, times: Tensor) -> list[float | None]:
    """Returns log(α_t² / σ_t²) of times t ≥ 1, None where α_t = 0."""
    levels = 2 * (process.alpha[times] / process.sigma[times]).log()
    return [v if math.isfinite(v) else None for v in levels.tolist()]


@contextmanager
def axes(path: Path, ylabel: str) -> Iterator[Any]:
    """Yields axes of matplotlib for shares, 0 … 1, and writes what is drawn there as a picture.

    Args:
        path: Where to.
        ylabel: What the shares are of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), dpi=120, layout="constrained")
    ax = figure.subplots()
    yield ax
    ax.set(ylabel=ylabel, ylim=(0, 1.02))
    ax.legend(fontsize=8)
    figure.savefig(path)


def level_axis(ax: Any, record: Mapping[str, Any]) -> None:
    """Names the axis of t, and writes log SNR above it.

    Args:
        ax: With what is drawn against t.
        record: With "t", and "log_snr" as `log_snr` returns it.
    """
    ax.set_xlabel("t")
    times, above = record["t"], ax.twiny()
    every = max(1, len(times) // 6)
    above.set_xlim(ax.get_xlim())
    labels = ["−∞" if v is None else f"{round(v, 1) + 0.0:.1f}" for v in record["log_snr"]]
    above.set_xticks(times[::every], labels[::every], fontsize=8)
    above.set_xlabel("log SNR, log(α_t² / σ_t²)", fontsize=8)


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Plots accuracy against t, with log SNR above.

    Args:
        record: What `by_time` returns.
        path: Where to.
    """
    times, chance = record["t"], record["chance"]
    middle, error = (torch.tensor(record[key]) for key in ("accuracy", "standard_error"))
    with axes(path, "accuracy on x_t") as ax:
        ax.fill_between(times, middle - error, middle + error, alpha=0.3, linewidth=0)
        ax.plot(times, middle, marker=".", label="accuracy ± standard error")
        ax.axhline(chance, color="grey", linestyle="--", label=f"chance, {chance:.3g}")
        level_axis(ax, record)
