"""An encoder that tells persons apart (ArcFace, Deng et al. 2019, arXiv 1801.07698)."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.data.identities.base import of_persons
from diffusion.networks import adapt
from diffusion.spec import Batch
from diffusion.systems.base import Scoring, StepOutput, channels_last
from diffusion.systems.identity import verification
from diffusion.systems.identity.angular_margin import AngularMargin
from diffusion.systems.noisy_classifier import check_crop, random_crop
from diffusion.systems.trainer import gather_rows


class IdentityEncoder(Scoring):
    """Trains an embedding of pictures by `AngularMargin`, on the persons of the training split.

    On batches {"image": (B, C, H, W) in [−1, 1], "person": (B,)}. Logs of the persons in the
    validation set, whom training has not seen, val/auc and val/eer of all pairs of pictures, and
    val/rank1, how often a picture's nearest is of its person where one picture of each is known. A
    test writes `identity.json` and `identity.png` to the trainer's default_root_dir.

    Args:
        network: Called as network(x_t, t) with t = 0, returns (B, D); its `out_channels` is D.
        persons: How many there are to train on.
        scale: s of the loss.
        margin: m of the loss, in radians.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        crop: Training images are mirrored at their edges by so many pixels and cut back at a place
            of each one's own; 0 leaves them alone.

    Raises:
        ValueError: If a number is out of range, or D is not known.
    """

    def __init__(
        self,
        network: nn.Module,
        persons: int,
        scale: float = 64.0,
        margin: float = 0.5,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        crop: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        check_counts("model", least=2, persons=persons)
        check_counts("model", least=0, crop=crop)
        if not (width := adapt(network).out_channels):
            raise ValueError("model.network.out_channels: 0; expected D, the embedding's size")
        self.network, self.crop, self.width = channels_last(network), crop, width
        self.loss = AngularMargin(persons, width, scale, margin)

    @property
    def reads_labels(self) -> bool:
        """Never: persons are no classes."""
        return False

    def check(self, data: Images) -> None:
        """See `System`: that there are persons, as many as there are centres."""
        persons = of_persons(data)
        adapt(self.network).check(data.spec)
        check_crop(self.crop, data.spec)
        there, known = persons.num_persons, len(self.loss.centres)
        if there != known:
            raise ValueError(
                f"model.persons: {known}; expected {there}, the persons that "
                f"{type(data).__name__} has to train on"
            )

    def embed(self, images: Tensor) -> Tensor:
        """Returns the embeddings of pictures in [−1, 1], of any length, (B, D)."""
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return self.network(images, t)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """One loss."""
        noise = self.step_noise(batch_idx, len(batch["image"]))
        images = random_crop(batch["image"], self.crop, noise)
        losses, hits = self.loss(self.embed(images), batch["person"])
        return {"loss": losses.mean(), "losses": losses.detach(), "hits": hits}

    def on_validation_epoch_start(self) -> None:
        """Begins to collect."""
        self.found: list[Tensor] = []
        self.whose: list[Tensor] = []

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the embeddings."""
        if batch:  # another process has the last one
            self.found.append(self.embed(batch["image"]).float())
            self.whose.append(batch["person"])

    test_step = validation_step

    def _all(self) -> tuple[Tensor, Tensor]:
        """Returns the embeddings of all processes, and whose they are, on the CPU."""
        none = torch.empty(0, self.width, device=self.device)  # of a process without data
        nobody = torch.empty(0, dtype=torch.int64, device=self.device)
        kept = torch.cat([none, *self.found]), torch.cat([nobody, *self.whose])
        found, whose = (gather_rows(self.trainer.strategy, x).cpu() for x in kept)
        return found, whose

    def on_validation_epoch_end(self) -> None:
        """Logs how well persons are told apart."""
        figures = verification.figures(*self._all())
        logged = {f"val/{name}": value for name, value in figures.items()}
        self.log_figures(logged, "val/auc", "val/rank1")

    def on_test_epoch_end(self) -> None:
        """Logs it, and writes it."""
        record = verification.record(*self._all())
        self.report(record, "identity.json", "identity.png", verification.plot)
