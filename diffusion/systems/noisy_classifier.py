"""A classifier of noisy images, for guidance (Dhariwal & Nichol 2021, section 4)."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.networks import adapt
from diffusion.noise import Purpose, SeededNoise
from diffusion.process import Process
from diffusion.spec import DataSpec
from diffusion.systems import accuracy
from diffusion.systems.base import Scoring, StepOutput, channels_last, spread_times

TIMES = 25  # at which a test measures the accuracy
VISITS = 5  # of these times, for each test image


class NoisyClassifier(Scoring):
    """Trains p_φ(y | x_t, t) by −log p_φ(y | α_t x_0 + σ_t ε, t), t uniform in 1 … T.

    On batches {"image": (B, C, H, W) in [−1, 1], "label": (B,)}. Logs val/loss, val/accuracy and,
    for t in the first … last quarter of 1 … T, val/accuracy_q1 … q4; training logs the same. A test
    deals the images over 25 times, five each, and writes to the trainer's default_root_dir
    `classifier.json` and `accuracy.png`, the accuracy against t. It should fall from that of an
    ordinary classifier, near t = 1, to chance, near T.

    Args:
        network: Called as network(x_t, t), returns logits (B, K); its attribute `num_classes` is K.
        process: The forward process, that of the model to be guided.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        crop: Training images are mirrored at their edges by so many pixels and cut back at a place
            of each one's own; 0 leaves them alone. (The paper takes random crops of larger images.)

    Raises:
        ValueError: If `crop` is negative.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        crop: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        check_counts("model", least=0, crop=crop)
        self.network, self.process, self.crop = channels_last(network), process, crop

    def check(self, data: Images) -> None:
        """See `System`: the classes, the size of the images, and how far they are moved."""
        spec, network = data.spec, adapt(self.network)
        if not spec.num_classes:
            raise ValueError(
                f"data: {spec.name} has no labels; expected data with classes to tell apart"
            )
        for seen in data.specs:
            network.check(seen, self.process.T)
        if network.num_classes != spec.num_classes:
            raise ValueError(
                f"model.network.num_classes: {network.num_classes}; expected the "
                f"{spec.num_classes} classes of {spec.name}"
            )
        check_crop(self.crop, spec)

    def losses(self, x_0: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns −log p_φ(y | x_t, t), and whether y was the likeliest, each (B,)."""
        logits = self.network(self.process.diffuse(x_0, t, eps), t).float()
        return F.cross_entropy(logits, label, reduction="none"), logits.argmax(1) == label

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> StepOutput:
        """One loss, at random times and noise."""
        noise = self.step_noise(batch_idx, len(batch["image"]))
        x_0 = random_crop(batch["image"], self.crop, noise)
        t = 1 + noise.integers(self.process.T)
        losses, hits = self.losses(x_0, batch["label"], t, noise(x_0))
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t, "hits": hits}

    def on_validation_epoch_start(self) -> None:
        """Begins to count."""
        self.tally = accuracy.AccuracyTally(4, self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Fixed times and noise, so that it compares from one time to the next."""
        if not batch:  # another process has the last one
            return
        x_0, number = batch["image"], self.number(batch_idx)
        t = spread_times(len(x_0), number, self.process.T).to(x_0.device)
        eps = self.fixed_noise(batch_idx, len(x_0))(x_0)
        results = self.losses(x_0, batch["label"], t, eps)
        self.tally.add(accuracy.quarters(t, self.process.T), *results)

    def on_validation_epoch_end(self) -> None:
        """Logs what was counted."""
        loss, hits, counts = self.tally.means(self.trainer.strategy)
        total = accuracy.by_quarter("val/loss", loss, counts)["val/loss"]
        figures = {"val/loss": total, **accuracy.by_quarter("val/accuracy", hits, counts)}
        self.log_figures(figures, "val/loss", "val/accuracy")

    def on_test_epoch_start(self) -> None:
        """Chooses the times, evenly from 1 to T."""
        T = self.process.T
        self.times = torch.linspace(1, T, min(TIMES, T)).round().long()
        self.tally = accuracy.AccuracyTally(len(self.times), self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Each image at some of the times."""
        if not batch:  # another process has the last one
            return
        x_0, number, n = batch["image"], self.number(batch_idx), len(self.times)
        i, noise = torch.arange(len(x_0)) + number * len(x_0), self.fixed_noise(batch_idx, len(x_0))
        for visit in range(VISITS):
            place = (i + visit * n // VISITS) % n
            t, place = self.times[place].to(x_0.device), place.to(x_0.device)
            results = self.losses(x_0, batch["label"], t, noise(x_0))
            self.tally.add(place, *results)

    def on_test_epoch_end(self) -> None:
        """Logs the accuracy, and writes it by t."""
        means = self.tally.means(self.trainer.strategy)
        num_classes: Any = self.network.num_classes
        record = accuracy.by_time(self.process, self.times, *means, chance=1 / num_classes)
        self.report({**record, "visits": VISITS}, "classifier.json", "accuracy.png", accuracy.plot)


def log_prob(network: nn.Module, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """Returns log p_φ(y | x_t, t) of a classifier, shape (B,).

    Args:
        network: Called as network(x_t, t), returns logits (B, K).
        x_t: Shape (B, C, H, W).
        t: Times in 1 … T, shape (B,).
        label: Shape (B,): classes 0 … K − 1, and all else is ∅, of which log p is 0.
    """
    log_p = network(x_t, t).float().log_softmax(1)
    known = (label >= 0) & (label < log_p.shape[1])
    of_label = log_p.gather(1, torch.where(known, label, 0)[:, None])[:, 0]
    return torch.where(known, of_label, 0.0)


def random_crop(x: Tensor, margin: int, noise: SeededNoise) -> Tensor:
    """Returns images (B, C, H, W), mirrored at their edges, moved by −margin … margin pixels."""
    if not margin:
        return x
    B, _, H, W = x.shape
    padded = F.pad(x, (margin,) * 4, mode="reflect")
    top, left = noise.of(Purpose.CROP).integers(2 * margin + 1, (2, 1)).unbind(1)
    rows = (top + torch.arange(H, device=x.device))[:, :, None]
    columns = (left + torch.arange(W, device=x.device))[:, None, :]
    sample = torch.arange(B, device=x.device)[:, None, None]
    return padded[sample, :, rows, columns].movedim(-1, 1)


def check_crop(crop: int, spec: DataSpec) -> None:
    """Refuses to move images out of sight.

    Raises:
        ValueError: If they are moved by more pixels than they have.
    """
    if crop and (len(spec.shape) != 3 or crop >= min(spec.shape[1:])):
        raise ValueError(
            f"model.crop: {crop}; expected less than the sides of the images, {spec.shape} here"
        )
