"""Short prompts made into captions in the style of training (Betker et al. 2023, section 3.5)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from diffusion.common.hashing import digest
from diffusion.common.validate import check_shares
from diffusion.data import Images
from diffusion.networks.captioning.prompt_network import PromptNetwork
from diffusion.networks.captioning.search import Beam, Sampling, Search
from diffusion.noise import SeededNoise
from diffusion.systems import accuracy
from diffusion.systems.base import Scoring, StepOutput
from diffusion.systems.captioning.captioner import counted, nll
from diffusion.systems.captioning.shortened import kept, lost, renamed, shortened
from diffusion.systems.trainer import data_of

TRIES = 8


class PromptUpsampler(Scoring):
    """Trains p(y | prompt) of captions y and short prompts: the mean of −log p(y_l | y_<l, prompt).

    (DALL-E 3 has GPT-4 in its place.) On batches {"text": B captions, "prompt": B short ones}. Half
    of the prompts are shortened further, and in some a word that the caption has too is renamed in
    both, so that words which were never seen are copied too (`shortened`).

    Logs val/loss, val/perplexity and val/token_accuracy. A test also logs which share of the
    prompts' words greedy captions have (kept) and of how many prompts they have all (kept_all), and
    the same of what `rewrite` returns, which is 1 (rewritten_kept_all); it leaves
    `prompt_upsampler.json` with all texts.

    Args:
        network: The encoder and the decoder.
        search: How captions are chosen; by default greedily.
        renamed: Share of the pairs in which a word is renamed, 0 … 1.
        optimizer: From parameters to an optimizer.
        lr_scheduler: From an optimizer to a schedule that moves once a step, or None.
        start: See `System`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        network: PromptNetwork,
        search: Search | None = None,
        renamed: float = 0.3,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        start: str | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, start)
        check_shares("model", renamed=renamed)
        self.network, self.renamed = network, renamed
        self.search = Beam() if search is None else search

    @property
    def reads_labels(self) -> bool:
        """Never."""
        return False

    @property
    def reads_texts(self) -> bool:
        """Always."""
        return True

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
        data = data_of(self.trainer)
        assert isinstance(data, Images)
        pictures = data.split("train").each()
        known = pictures.conditions(range(len(pictures)))
        self.network.vocabulary.learn([*known["text"], *known["prompt"]])

    def read(self, texts: Sequence[str]) -> Tensor:
        """Returns the tokens of texts, (B, N), on this module's device."""
        return self.network.vocabulary.read(texts).to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> StepOutput:
        """The loss of shortened and renamed pairs."""
        noise = self.step_noise(batch_idx, len(batch["text"]))
        draws: list[list[float]] = noise.uniform((5,)).tolist()
        pairs = list[tuple[str, str]]()
        for prompt, text, (u, *more) in zip(batch["prompt"], batch["text"], draws):
            pair = shortened(prompt, more[0]), text
            pairs.append(renamed(*pair, more[1], more[2]) if u < self.renamed else pair)
        tokens = self.read([text for _, text in pairs])
        each = nll(self.network(self.read([prompt for prompt, _ in pairs]), tokens), tokens)
        there = tokens >= 0
        losses = each.sum(1) / there.sum(1)
        return {"loss": each.sum() / there.sum(), "losses": losses.detach()}

    def on_validation_epoch_start(self) -> None:
        """Begins to count."""
        self.sums = torch.zeros(3, device=self.device)
        self.pairs: list[tuple[str, str]] = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Counts tokens."""
        if batch:  # else another process has the last one
            tokens = self.read(batch["text"])
            self.sums += counted(self.network(self.read(batch["prompt"]), tokens), tokens)

    def _figures(self) -> dict[str, float]:
        """Returns what was counted, over all processes."""
        sums = self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum")
        loss, hits, n = sums.double().tolist()
        return {
            "loss": loss / n, "perplexity": math.exp(loss / n), "token_accuracy": hits / n
        }  # fmt: skip

    def on_validation_epoch_end(self) -> None:
        """Logs it."""
        figures = {f"val/{name}": value for name, value in self._figures().items()}
        self.log_figures(figures, "val/perplexity", "val/token_accuracy")

    def on_test_epoch_start(self) -> None:
        """Begins to count."""
        self.on_validation_epoch_start()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Validates, and keeps the prompts."""
        self.validation_step(batch, batch_idx)
        self.pairs += [(text, text) for text in batch.get("prompt", ())]

    def on_test_epoch_end(self) -> None:
        """Logs how many words were kept, and writes this process's texts."""
        prompts = [prompt for prompt, _ in self.pairs]
        written, texts = self.captions(prompts, self.search), self.rewrite(prompts)
        figures = self._figures()
        for name, found in (("", written), ("rewritten_", texts)):
            shares = [kept(prompt, text) for prompt, text in zip(prompts, found)]
            figures[f"{name}kept"] = sum(shares) / max(len(shares), 1)
            figures[f"{name}kept_all"] = sum(x == 1 for x in shares) / max(len(shares), 1)
        rows = [
            {"prompt": prompt, "written": one, "rewritten": other}
            for prompt, one, other in zip(prompts, written, texts)
        ]
        record = {"figures": figures, "texts": rows}
        self.report(record, "prompt_upsampler.json", "prompt_upsampler.png", bars)

    @torch.no_grad()
    def captions(self, prompts: Sequence[str], search: Search) -> list[str]:
        """Returns what a search finds for each prompt; the same prompt gets the same in any batch.

        Prompts of one number of tokens are read together, so that none is padded.
        """
        by_size: dict[int, list[str]] = {}
        for prompt in dict.fromkeys(prompts):
            size = min(len(self.network.vocabulary.tokens(prompt)), self.network.vocabulary.length)
            by_size.setdefault(size, []).append(prompt)
        found: dict[str, str] = {}
        for texts in by_size.values():
            numbers = [int(digest(text), 16) >> 1 for text in texts]
            noise = SeededNoise(0, numbers, self.device)
            states = self.network.look(self.read(texts))
            tokens, _ = search(self.network, states, noise.uniform)
            rows = (self.network.vocabulary.text(row) for row in tokens.tolist())
            found |= zip(texts, rows)
        return [found[prompt] for prompt in prompts]

    def rewrite(self, prompts: Sequence[str]) -> list[str]:
        """Returns a caption of each prompt that has all its words (`lost`).

        Where the likeliest has not, others are drawn, at most `TRIES`; where none has, the prompt
        stands in place of the first sentence. The empty prompt stays.
        """
        found = dict(zip(prompts, self.captions(prompts, self.search)))
        for i in range(TRIES):
            if bad := [x for x in found if lost(x, found[x])]:
                drawn = self.captions(bad, Sampling(1 + i / TRIES, 0.9))
                found |= {x: y for x, y in zip(bad, drawn) if not lost(x, y)}
        for prompt, text in found.items():
            if lost(prompt, text):
                found[prompt] = ". ".join([prompt.rstrip(". "), *text.split(". ")[1:]])
        return [found[prompt] if prompt.strip() else prompt for prompt in prompts]


def bars(record: Mapping[str, Any], path: Path) -> None:
    """Plots the shares among a record's figures."""
    found: Mapping[str, float] = record["figures"]
    names = [name for name in found if name not in ("loss", "perplexity")]
    with accuracy.axes(path, "share") as ax:
        ax.bar(names, [found[name] for name in names], 0.7, label="of all tokens, words or prompts")
