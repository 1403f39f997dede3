"""CLIP, and the CLIP of noisy pictures (Radford et al. 2021; GLIDE, Nichol et al. 2021, 4.4)."""

from functools import partial

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from diffusion.common.devices import moved
from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.networks import adapt
from diffusion.networks.towers import Towers
from diffusion.noise import SeededNoise
from diffusion.process import Process
from diffusion.spec import Batch
from diffusion.systems import retrieval
from diffusion.systems.base import Scoring, StepOutput, channels_last
from diffusion.systems.noisy_classifier import check_crop, random_crop
from diffusion.systems.retrieval import loss_among_all, numbers
from diffusion.systems.texts import remember, texts_of
from diffusion.systems.trainer import gather_rows

TIMES = 9  # at which a test measures


class Contrastive(Scoring):
    """Trains f and g by `info_nce` on (x_t, t, text), t uniform in 1 … T, among all processes.

    On batches {"image": (B, C, H, W) in [−1, 1], "text": B strings}. Without a process all pictures
    are clean, t = 0. Logs val/recall@1, @5, @10 (picture → text, among the distinct captions of the
    whole split), the same with _t2i (text → picture), and val/loss (among all its pairs); with a
    process they are means over four fixed times, the middles of the quarters of 1 … T, and
    val/recall@1_q1 … q4 are those of each. A test writes to the trainer's default_root_dir
    `retrieval.json` and `retrieval.png`; with a process, at nine times from 1 to T.

    Args:
        network: f, g and λ.
        process: The forward process, that of the model to be guided; None for clean pictures.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        crop: Training images are mirrored at their edges by so many pixels and cut back at a place
            of each one's own; 0 leaves them alone.
        clean: With a process, the share of training images that stay clean, t = 0, so that it can
            score x̂_0 as well.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        network: Towers,
        process: Process | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        crop: int = 0,
        clean: float = 0.0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        check_counts("model", least=0, crop=crop)
        if not 0 <= clean < 1:
            raise ValueError(f"model.clean: {clean}; expected 0 ≤ clean < 1")
        self.network = channels_last(network)
        self.process, self.crop, self.clean = process, crop, clean

    @property
    def reads_labels(self) -> bool:
        """Never."""
        return False

    def check(self, data: Images) -> None:
        """See `System`; also reads all texts once."""
        texts_of(data)
        for seen in data.specs:
            adapt(self.network.image).check(seen, self.T, "model.network.image")
        check_crop(self.crop, data.spec)
        remember(self.network, data, self.cache, self.trainer)

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Returns what the text tower reads of batch["text"], on this module's device."""
        values = self.network.text.read(batch["text"])
        return {k: moved(v, self.device) for k, v in values.items()}

    def random_times(self, noise: SeededNoise) -> Tensor:
        """Returns a time for each sample, (B,): uniform in 1 … T, or 0 if clean."""
        if self.process is None:
            return torch.zeros(len(noise), dtype=torch.int64, device=self.device)
        t = 1 + noise.integers(self.process.T)
        return torch.where(noise.uniform() < self.clean, 0, t) if self.clean else t

    def diffuse(self, x_0: Tensor, t: Tensor, noise: SeededNoise) -> Tensor:
        """Returns x_t, which is x_0 at t = 0."""
        return x_0 if self.process is None else self.process.diffuse(x_0, t, noise(x_0))

    def losses(self, images: Tensor, texts: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `loss_among_all`, each (B,).

        Args:
            images: f, (B, D).
            texts: g, (B, D).
            number: `numbers` of the texts, (B,).
        """
        return loss_among_all(self, (images, texts, number), self.network.scale)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """One loss, at random times and noise."""
        noise = self.step_noise(batch_idx, len(batch["image"]))
        with torch.no_grad():  # as CLIP's code does, so that λ does not get stuck beyond its bound
            self.network.log_scale.clamp_(max=self.network.bound)
        x_0 = random_crop(batch["image"], self.crop, noise)
        t = self.random_times(noise)
        images = self.network.embed_image(self.diffuse(x_0, t, noise), t)
        texts = self.network.embed_text(self.read(batch))
        losses, hits = self.losses(images, texts, moved(numbers(batch["text"]), self.device))
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t, "hits": hits}

    def on_validation_epoch_start(self) -> None:
        """Chooses the times: the middles of the quarters of 1 … T."""
        T = self.T
        self._begin([((2 * i + 1) * T + 7) // 8 for i in range(4)] if T else [0])

    def on_test_epoch_start(self) -> None:
        """Chooses the times, evenly from 1 to T."""
        T = self.T
        self._begin(torch.linspace(1, T, min(TIMES, T)).round().long().tolist() if T else [0])

    def _begin(self, times: list[int]) -> None:
        self.times = times
        self.images: list[list[Tensor]] = [[] for _ in times]
        self.texts, self.numbers = [], []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps f of each picture at fixed times and noise, and g of its text."""
        if not batch:  # another process has the last one
            return
        x_0 = batch["image"]
        noise = self.fixed_noise(batch_idx, len(x_0))
        for i, time in enumerate(self.times):
            t = torch.full((len(x_0),), time, device=x_0.device)
            x_t = self.diffuse(x_0, t, noise)
            self.images[i].append(self.network.embed_image(x_t, t))
        self.texts.append(self.network.embed_text(self.read(batch)))
        self.numbers.append(numbers(batch["text"]))

    test_step = validation_step

    def _pairs(self) -> list[retrieval.Pairs]:
        """Returns the pairs of all processes at each time."""
        none = torch.empty(0, self.network.width, device=self.device)  # of a process without data
        gathered = partial(gather_rows, self.trainer.strategy)
        texts = gathered(torch.cat([none, *self.texts]))
        number = torch.cat([torch.empty(0, dtype=torch.int64), *self.numbers])
        number = gathered(number.to(self.device))
        images = (gathered(torch.cat([none, *found])) for found in self.images)
        return [retrieval.Pairs.from_each(found, texts, number) for found in images]

    def on_validation_epoch_end(self) -> None:
        """Logs how well pictures and texts find each other."""
        each = [pairs.figures(self.network.scale.cpu()) for pairs in self._pairs()]
        figures = {f"val/{name}": value for name, value in retrieval.mean(each).items()}
        for i, one in enumerate(each if self.process else ()):
            figures[f"val/recall@1_q{i + 1}"] = one["recall@1"]
        self.log_figures(figures, "val/loss", "val/recall@1")

    def on_test_epoch_end(self) -> None:
        """Logs it, and writes it by t."""
        times, scale = torch.tensor(self.times), self.network.scale.cpu()
        record = retrieval.record(self.process, times, self._pairs(), scale)
        self.report(record, "retrieval.json", "retrieval.png", retrieval.plot)
