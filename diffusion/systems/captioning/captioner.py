"""A captioner as DALL-E 3 has one (Betker et al. 2023): CoCa (Yu et al. 2022, arXiv 2205.01917)."""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from diffusion.common.devices import moved
from diffusion.common.validate import check_counts
from diffusion.data import Images
from diffusion.networks.captioning.caption_network import CaptionNetwork
from diffusion.networks.captioning.search import Beam, Search
from diffusion.noise import SeededNoise
from diffusion.spec import Batch
from diffusion.systems.base import StepOutput, channels_last
from diffusion.systems.captioning.writing import Writing, counted, nll
from diffusion.systems.noisy_classifier import check_crop, random_crop
from diffusion.systems.retrieval import Pairs, loss_among_all, numbers
from diffusion.systems.texts import texts_of
from diffusion.systems.trainer import gather_rows


class Captioner(Writing):
    """Trains p(y | x) of captions by caption · L_Cap + contrastive · L_Con (CoCa, equation 4).

    L_Cap is the mean of −log p(y_l | y_<l, x) over all tokens, the end among them (equation 3);
    L_Con is `info_nce` of f(x) and g(y) (equation 1, whose two terms CoCa adds and this averages).
    The weights are CoCa's, 2 and 1.

    On batches {"image": (B, C, H, W) in [−1, 1], "text": B strings}. The words of the training
    captions become tokens when training starts, those of another run first where it starts from
    one: DALL-E 3 goes on from short captions to detailed ones. Logs val/loss (L_Cap),
    val/perplexity = exp(L_Cap), val/token_accuracy (the likeliest next token after the true ones),
    and val/recall@1 (picture → text, by f and g).

    A test also writes captions, and logs how much of what they say is true, where data know it
    (`hallucination.Tally`; floor: the caption of a training picture, ceiling: the true caption);
    perplexity_floor and token_accuracy_floor are of the true captions beside a training picture. It
    leaves `captioner.json`, with all captions, and `captioner.png`.

    Args:
        network: The tower and the decoder.
        search: How captions are chosen; by default greedily.
        caption: Weight of L_Cap.
        contrastive: Weight of L_Con; 0 where the tower is not trained.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        crop: Training images are mirrored at their edges by so many pixels and cut back at a place
            of each one's own; 0 leaves them alone.
        start: See `System`.

    Raises:
        ValueError: If a number is out of range.
    """

    name, entry = "captioner", "captions"

    def __init__(
        self,
        network: CaptionNetwork,
        search: Search | None = None,
        caption: float = 2.0,
        contrastive: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        crop: int = 0,
        start: str | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, start)
        check_counts("model", least=0, crop=crop)
        if not (caption > 0 and contrastive >= 0 and math.isfinite(caption + contrastive)):
            raise ValueError(
                f"model.caption: {caption}, model.contrastive: {contrastive}; expected weights of "
                "more than 0, and of 0 or more"
            )
        self.network, self.crop = channels_last(network), crop
        self.search = Beam() if search is None else search
        self.caption, self.contrastive = caption, contrastive

    def check(self, data: Images) -> None:
        """See `System`."""
        texts_of(data)
        for seen in data.specs:
            self.network.image.check(seen, key="model.network.image")
        check_crop(self.crop, data.spec)

    def on_fit_start(self) -> None:
        """Starts from another model's weights if asked to, and learns the words of the captions."""
        super().on_fit_start()
        (data, known), vocabulary = self.training_texts(), self.network.vocabulary
        batches = [known] if "text" in known else data.batches("train")
        texts = [text for batch in batches for text in batch["text"]]
        vocabulary.learn(texts)
        if cut := vocabulary.cut(texts):
            rank_zero_warn(
                f"model.network.length: {vocabulary.length}; {cut} of {len(texts)} captions have "
                "more tokens and are cut"
            )

    def read(self, texts: Sequence[str]) -> Tensor:
        """Returns the tokens of texts, (B, N), on this module's device."""
        return moved(self.network.vocabulary.read(texts), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Both losses."""
        noise = self.step_noise(batch_idx, len(batch["image"]))
        tokens = self.read(batch["text"])
        images = random_crop(batch["image"], self.crop, noise)
        logits, f, g = self.network(images, tokens)
        each, there = nll(logits, tokens), tokens >= 0
        own = f, g, moved(numbers(batch["text"]), self.device)
        contrastive, hits = loss_among_all(self, own, self.network.scale)
        loss = self.caption * each.sum() / there.sum() + self.contrastive * contrastive.mean()
        losses = self.caption * each.sum(1) / there.sum(1) + self.contrastive * contrastive
        return {"loss": loss, "losses": losses.detach(), "hits": hits}

    @torch.no_grad()
    def captions(
        self, images: Tensor, noise: SeededNoise, search: Search | None = None
    ) -> tuple[list[str], Tensor]:
        """Returns captions of pictures (B, C, H, W) in [−1, 1], and log p of each, (B,).

        Args:
            images: On this module's device.
            noise: Of the pictures, which decides what `Sampling` draws.
            search: In place of the module's own.
        """
        _, states = self.network.look(images)
        tokens, log_p = (search or self.search)(self.network, states, noise.uniform)
        return [self.network.vocabulary.text(row) for row in tokens.tolist()], log_p

    def on_validation_epoch_start(self) -> None:
        """Begins to count."""
        self.sums = torch.zeros(2, 3, device=self.device)  # beside the own picture, and another
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts tokens, and keeps f and g."""
        if not batch:  # another process has the last one
            return
        tokens = self.read(batch["text"])
        logits, f, g = self.network(batch["image"], tokens)
        self.sums[0] += counted(logits, tokens)
        self.found.append((f, g, numbers(batch["text"])))

    def counts(self) -> dict[str, float]:
        """Returns what was counted, over all processes."""
        sums = self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum").double().cpu()
        figures: dict[str, float] = {}
        for suffix, (loss, hits, n) in zip(("", "_floor"), sums.tolist()):
            if n:
                figures[f"perplexity{suffix}"] = math.exp(loss / n)
                figures[f"token_accuracy{suffix}"] = hits / n
        width, none = self.network.width, torch.empty(0, device=self.device)
        empty = none.view(0, 1).expand(0, width), none.view(0, 1).expand(0, width), none.long()
        rows = (torch.cat([x.to(self.device) for x in kept]) for kept in zip(empty, *self.found))
        gathered = [gather_rows(self.trainer.strategy, x) for x in rows]
        recall = Pairs.from_each(*gathered).figures(self.network.scale.cpu())["recall@1"]
        return {"loss": math.log(figures["perplexity"]), **figures, "recall@1": recall}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Validates, writes captions, and compares them with those of training pictures."""
        self.validation_step(batch, batch_idx)
        if not batch:
            return
        data, noise = self._data(), self.fixed_noise(batch_idx, len(batch["image"]))
        assert data is not None
        train = data.split("train")
        other = train.__getitems__(noise.integers(len(train)).tolist())
        tokens = self.read(batch["text"])
        images = data.normalize(other["image"].to(self.device))
        self.sums[1] += counted(self.network(images, tokens)[0], tokens)
        written, _ = self.captions(batch["image"], noise)
        self.written += [
            {"true": true, "written": text} for true, text in zip(batch["text"], written)
        ]
        if self.tally is not None:
            self.tally.add(written, other["text"], batch["text"])
