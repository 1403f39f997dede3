"""A face swapper, inswapper-style, with SimSwap's losses (Chen et al. 2020, arXiv 2106.06340)."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffusion.common.hashing import weights_digest
from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.data.identities.base import Identities, of_persons
from diffusion.networks.identity.projected_discriminator import ProjectedDiscriminator
from diffusion.networks.identity.swap_generator import SwapGenerator
from diffusion.noise import seed
from diffusion.spec import Batch
from diffusion.systems.base import Scoring, StepOutput, channels_last
from diffusion.systems.frozen.identities import FrozenIdentity
from diffusion.systems.swapping.swap_figures import SWAPPER, SwapFigures

Maps = list[Tensor]


class Swapper(Scoring):
    """Trains G(x, e) to show x's pose with the identity whose embedding by a fixed encoder is e.

    On batches {"image": x, "identity": another picture of the same person}, both (B, C, H, W) in
    [−1, 1]. Where a step is of the same identity, e is of "identity", else of that of another row.
    With ê of length 1, the critic D of fixed features h_1 … h_4, and SimSwap's published weights,

    L_G = −D(G) + 30 (1 − ⟨e(G), ê⟩) + 10 |h_4(G) − h_4(x)| + 10 |G − x|, the last where it is of
    the same identity; L_D = max(0, 1 + D(G)) + max(0, 1 − D("identity")).

    G's optimizer is the first, whose steps count; neither touches the other's weights. A validation
    logs, and a test writes to `swap.json` and `swap.png`, what `SwapFigures` finds by a judge that
    is another encoder than the one that conditions.

    Args:
        network: G.
        encoder: Makes e; fixed.
        judge: Another encoder, by which swaps are judged; None to measure no identity.
        discriminator: D.
        identity: Weight of the cosine.
        features: Weight of the features h_4.
        reconstruction: Weight of |G − x|.
        same: The share of steps that are of the same identity.
        warmup: Steps at the beginning that all are.
        patience: The step from which on training stops where a validation finds the result still
            more like the target than like the source; None for never.
        optimizer: From parameters to an optimizer, for G and for D; SimSwap's by default.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: A checkpoint whose averaged weights of G and D training starts from, see `begin`;
            both optimizers start anew.

    Raises:
        ValueError: If a number is out of range, or encoder and network do not fit.
    """

    instead = "`diffusion swap`"

    def __init__(
        self,
        network: SwapGenerator,
        encoder: FrozenIdentity,
        judge: FrozenIdentity | None = None,
        discriminator: ProjectedDiscriminator | None = None,
        identity: float = 30.0,
        features: float = 10.0,
        reconstruction: float = 10.0,
        same: float = 0.5,
        warmup: int = 0,
        patience: int | None = 2000,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        start: str | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, start)
        self.automatic_optimization = False
        check_counts("model", least=0, warmup=warmup, patience=patience)
        weights = {"identity": identity, "features": features, "reconstruction": reconstruction}
        for name, value in weights.items():
            if value < 0:
                raise ValueError(f"model.{name}: {value}; expected at least 0")
        if not 0 < same < 1:
            raise ValueError(f"model.same: {same}; expected 0 < same < 1, both kinds of steps")
        if network.identity != encoder.dimension:
            raise ValueError(
                f"model.network.identity: {network.identity}; expected {encoder.dimension}, the "
                "size of the encoder's embeddings"
            )
        if judge is not None and judge.digest == encoder.digest:
            raise ValueError(
                f"model.judge: {judge.digest}, which conditions, too; expected another encoder"
            )
        self.network, self.encoder = channels_last(network), encoder
        self.discriminator = channels_last(discriminator or ProjectedDiscriminator())
        self.weights, self.same = weights, same
        self.warmup, self.patience = warmup, patience
        self.found = SwapFigures(judge)

    @property
    def reads_labels(self) -> bool:
        """Never: persons are no classes."""
        return False

    def check(self, data: Images) -> None:
        """See `System`: that there are persons, and pictures as the networks read them."""
        of_persons(data)
        size, net = tuple(data.shape), self.network
        wanted = {
            "network": (net.in_channels, net.image_size, net.image_size),
            "encoder": tuple(self.encoder.shape),
        }
        for name, shape in wanted.items():
            if shape != size:
                raise ValueError(
                    f"model.{name}: of pictures of shape {shape}; expected {size}, as in "
                    f"{type(data).__name__}"
                )
        if data.batch_size < 2:
            raise ValueError("data.batch_size: 1; expected at least 2, so that there are others")

    def configure_optimizers(self) -> Any:
        """G's first, then D's, and their schedules."""
        parts = self.network, self.discriminator
        every = [self.optimizer(p for p in part.parameters() if p.requires_grad) for part in parts]
        if self.lr_scheduler is None:
            return every
        return every, [self.lr_scheduler(one) for one in every]

    def swap(self, target: Tensor, source: Tensor) -> Tensor:
        """Returns pictures of the targets' poses with the sources' identities, all (B, C, H, W)."""
        with torch.no_grad():
            e = self.encoder.embed(source)
        return self.network(target, e)

    def is_same(self, step: int) -> bool:
        """Whether a step is of the same identity: a share `same` of them, evenly spread."""
        n = step - self.warmup
        return n < 0 or int((n + 1) * self.same) > int(n * self.same)

    def generator_losses(
        self, x: Tensor, e: Tensor, wanted: Tensor, same: bool
    ) -> tuple[Maps, dict[str, Tensor]]:
        """Returns h_1 … h_4 of G(x, e), and the terms of L_G by name, weighted, each (B,).

        Args:
            x: Targets, (B, C, H, W).
            e: Unit embeddings of who they become, (B, D).
            wanted: h_4 of x.
            same: Whether these are of the same persons.
        """
        swapped, weight = self.network(x, e), self.weights
        h, cosine = self.discriminator.features(swapped), (self.encoder.embed(swapped) * e).sum(1)
        terms = {
            "adversarial": -self.discriminator(h).mean(1),
            "identity": weight["identity"] * (1 - cosine),
            "features": weight["features"] * (h[-1] - wanted).float().abs().mean((1, 2, 3)),
        }
        if same:
            error = (swapped - x).float().abs().mean((1, 2, 3))
            terms["reconstruction"] = weight["reconstruction"] * error
        return h, terms

    def discriminator_loss(self, fake: Maps, real: Maps) -> Tensor:
        """Returns L_D of h_1 … h_4 of pictures."""
        no, yes = map(self.discriminator, (fake, real))
        return (F.relu(1 + no) + F.relu(1 - yes)).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """A step of G, then one of D."""
        x, real, step = batch["image"], batch["identity"], self.trainer.global_step
        self.step_noise(batch_idx, len(x))
        same, (g, d) = self.is_same(step), self.optimizers()
        with torch.no_grad():
            e, known = self.encoder.embed(real), self.discriminator.features(torch.cat([x, real]))
        if not same:
            e = e.roll(1 + seed(self.seed, step) % (len(x) - 1), 0)
        self.discriminator.eval()  # so that its spectral norms stay as they are
        self.toggle_optimizer(g)
        h, terms = self.generator_losses(x, e, known[-1][: len(x)], same)
        losses = torch.stack([*terms.values()]).sum(0)
        self._move(g, losses.mean())
        self.discriminator.train()
        self.toggle_optimizer(d)
        fake = [one.detach() for one in h]  # fixed features: the same for both steps
        wrong = self.discriminator_loss(fake, [one[len(x) :] for one in known])
        self._move(d, wrong)
        schedules: Any = self.lr_schedulers() if self.lr_scheduler else []
        for one in schedules:
            one.step()
        self.log_dict({f"train/{k}": v.detach().mean() for k, v in terms.items()})
        self.log("train/discriminator", wrong.detach())
        return {"loss": losses.detach().mean(), "losses": losses.detach()}

    def _move(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def on_validation_epoch_start(self) -> None:
        """Begins to collect."""
        self.found.begin()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Swaps each picture with one of somebody else."""
        self._measure(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same."""
        self._measure(batch, batch_idx, "test")

    def _measure(self, batch: Batch, batch_idx: int, split: str) -> None:
        data = self._data()
        if batch and isinstance(data, Identities):  # else another process has the last one
            first = self.number(batch_idx) * data.batch_size
            targets = range(first, first + len(batch["image"]))
            swap = lambda batch, source: self.swap(batch["image"], source)  # noqa: E731
            self.found.add(swap, data, split, targets, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the figures, and stops training that returns the target."""
        figures = self.found.rows(self.trainer.strategy)[SWAPPER]
        logged = {f"val/{name}": value for name, value in figures.items()}
        self.log_figures(logged, "val/gain", "val/truth")
        step, gain = self.trainer.global_step, figures.get("gain", 0.0)
        late = self.patience is not None and step >= self.patience
        if self.trainer.state.fn == TrainerFn.FITTING and late and gain < 0:
            self.trainer.should_stop = True
            rank_zero_warn(
                f"training ends at step {step}: swaps are still nearer to the target than to the "
                f"source (val/gain {gain:.3f}); expected above 0 from model.patience = "
                f"{self.patience} on; a larger model.identity or a smaller model.same may help"
            )

    def on_test_epoch_end(self) -> None:
        """Logs them, and writes them."""
        digests = {
            "weights": weights_digest(self.network.state_dict()),
            "encoder": self.encoder.digest,
        }
        record = self.found.record(self.trainer.strategy, **digests)
        self.report(record, "swap.json", "swap.png", self.found.plot)
