"""Short prompts made into captions in the style of training (Betker et al. 2023, section 3.5)."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from diffusion.common.devices import moved
from diffusion.common.hashing import digest
from diffusion.common.validate import check_shares
from diffusion.data import Images
from diffusion.networks.captioning.prompt_network import PromptNetwork
from diffusion.networks.captioning.search import Beam, Search
from diffusion.noise import SeededNoise
from diffusion.spec import Batch
from diffusion.systems.base import StepOutput
from diffusion.systems.captioning.shortened import (
    added,
    joined,
    renamed,
    shortened,
    without_repeats,
)
from diffusion.systems.captioning.writing import Writing, counted, nll


class PromptUpsampler(Writing):
    """Learns what to add to a short prompt: p(y | prompt), y what a detailed caption has more.

    The loss is the mean of −log p(y_l | y_<l, prompt). (DALL-E 3 has GPT-4 in its place.) The
    rewritten prompt is the prompt and y, so it has all words that were asked for, whichever they
    are. On batches {"text": B captions, "prompt": B short ones}. Half of the prompts are shortened
    further, and in some a word is renamed, as words that were never seen are (`shortened`).

    Logs val/loss, val/perplexity and val/token_accuracy. A test also logs how much of what is
    added is true of the prompt's picture, where data know it (`hallucination.Tally`; floor: the
    caption of another picture, ceiling: the true caption), and leaves `prompt_upsampler.json` with
    all texts and `prompt_upsampler.png`.

    Args:
        network: The encoder and the decoder.
        search: How y is chosen; by default greedily, of whole words of training captions.
        renamed: Share of the pairs in which a word is renamed, 0 … 1.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: See `System`.

    Raises:
        ValueError: If a number is out of range.
    """

    name, entry = "prompt_upsampler", "texts"

    def __init__(
        self,
        network: PromptNetwork,
        search: Search | None = None,
        renamed: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        start: str | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, start)
        check_shares("model", renamed=renamed)
        self.network, self.renamed = network, renamed
        self.search = Beam(spell=False) if search is None else search

    def check(self, data: Images) -> None:
        """See `System`."""
        if data.prompt is None:
            raise ValueError(
                f"data.prompt: none in {type(data).__name__}; expected the kind of captions that "
                "prompts are like, such as `prompt: short` of Emoji"
            )

    def on_fit_start(self) -> None:
        """Learns the words of all captions and prompts to train on."""
        super().on_fit_start()
        _, known = self.training_texts()
        every = chain(known["prompt"], map(added, known["prompt"], known["text"]))
        self.network.vocabulary.learn(f" {text}" for text in every)

    def read(self, texts: Sequence[str]) -> Tensor:
        """Returns the tokens of texts, (B, N), on this module's device.

        There is a space before each, so that its first word is a token like all others.
        """
        return moved(self.network.vocabulary.read([f" {text}" for text in texts]), self.device)

    def said(self, prompts: Sequence[str], more: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns the logits (B, N, K) of what is added to prompts, and its tokens (B, N)."""
        tokens = self.read(more)
        return self.network(self.read(prompts), tokens, self.network.pooled(prompts)), tokens

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """The loss of shortened and renamed pairs."""
        noise = self.step_noise(batch_idx, len(batch["text"]), torch.device("cpu"))
        draws: list[list[float]] = noise.uniform((5,)).tolist()
        pairs = list[tuple[str, str]]()
        for prompt, text, (u, *more) in zip(batch["prompt"], batch["text"], draws):
            pair = shortened(prompt, more[0]), added(prompt, text)
            pairs.append(renamed(*pair, more[1], more[2]) if u < self.renamed else pair)
        logits, tokens = self.said(*zip(*pairs))
        each, there = nll(logits, tokens), tokens >= 0
        losses = each.sum(1) / there.sum(1)
        return {"loss": each.sum() / there.sum(), "losses": losses.detach()}

    def on_validation_epoch_start(self) -> None:
        """Begins to count."""
        self.sums = torch.zeros(3, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts tokens."""
        if batch:  # else another process has the last one
            more = [added(*pair) for pair in zip(batch["prompt"], batch["text"])]
            self.sums += counted(*self.said(batch["prompt"], more))

    def counts(self) -> dict[str, float]:
        """Returns what was counted, over all processes."""
        sums = self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum")
        loss, hits, n = sums.double().tolist()
        return {
            "loss": loss / n, "perplexity": math.exp(loss / n), "token_accuracy": hits / n
        }  # fmt: skip

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Validates, and rewrites the prompts."""
        self.validation_step(batch, batch_idx)
        if not batch:
            return
        written, true = self.rewrite(batch["prompt"]), batch["text"]
        self.written += [
            {"prompt": prompt, "rewritten": text, "true": own}
            for prompt, text, own in zip(batch["prompt"], written, true)
        ]
        if self.tally is not None:
            self.tally.add(written, [*true[1:], true[0]], true)

    @torch.no_grad()
    def rewrite(self, prompts: Sequence[str]) -> list[str]:
        """Returns each prompt with what is added; the same gets the same in any batch.

        Prompts of one number of tokens are read together, so that none is padded. The empty prompt
        stays as it is, and so does one that is too long to be read.
        """
        vocabulary, by_size = self.network.vocabulary, dict[int, list[str]]()
        for prompt in dict.fromkeys(prompts):
            size = len(vocabulary.tokens(f" {prompt}"))
            if prompt.strip() and size < vocabulary.length:
                by_size.setdefault(size, []).append(prompt)
        found = dict(zip(prompts, prompts))
        for texts in by_size.values():
            numbers = [int(digest(text), 16) >> 1 for text in texts]
            noise = SeededNoise(0, numbers, self.device)
            states = self.network.look(self.read(texts), self.network.pooled(texts))
            tokens, _ = self.search(self.network, states, noise.uniform)
            rows = (vocabulary.text(row) for row in tokens.tolist())
            found |= {
                text: joined(text, without_repeats(row.strip())) for text, row in zip(texts, rows)
            }
        return [found[prompt] for prompt in prompts]
