"""Encoders of texts that somebody else has trained, and that stay as they are."""

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.files import check_writable, written_aside
from diffusion.common.hashing import digest
from diffusion.common.progress import bar
from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.networks.text.base import TextEncoder

ROWS = 8
MORE = 256
MULTIPLE = 8
COLUMNS = ("states", "mask", "pooled", "size")

Row = tuple[Tensor, Tensor, Tensor, Tensor]  # (L, D), (L,), (D',), ()


@dataclass(frozen=True)
class Pretrained:
    """What a frozen encoder loads when it first needs it.

    Attributes:
        model: (ids (B, N), mask (B, N) bool) → (states (B, N, D), pooled (B, D') or None for the
            masked mean of the states).
        tokenize: Texts → all ids of each, at least one, with what stands before and behind them.
    """

    model: nn.Module
    tokenize: Callable[[Sequence[str]], list[list[int]]]


class FrozenText(TextEncoder):
    """Token states, mask and pooled vector of a text, from weights that are never trained.

    The weights are no submodule: no optimizer, average or checkpoint sees them, and a copy of the
    encoder has none until it needs them. They are loaded when a text is read that is not
    remembered, and work where the encoder was moved to.

    States and pooled vectors are rounded to fp16, remembered or not. A text is computed in a batch
    of `ROWS` texts (`MORE` on an accelerator) whose padded length is its own number of tokens,
    rounded up to `MULTIPLE`: the shape of the computation depends on the text alone. So the same
    text has the same bits in any company, and from the disk, on one kind of device with one version
    and number of threads.

    Args:
        length: L, the most tokens that are read, those before and behind the text included. Of a
            longer text the first L − 1 and the last, its end token, are read.

    Raises:
        ValueError: If `length` is below 2.
    """

    values = ("", "_mask", "_pooled")

    def __init__(self, length: int) -> None:
        super().__init__()
        if length < 2:
            raise ValueError(f"{type(self).__name__}.length: {length}; expected at least 2")
        self.length = length
        self._device = torch.device("cpu")
        self._known: dict[str, Row] = {}
        self._pretrained: Pretrained | None = None

    @abstractmethod
    def load(self) -> Pretrained:
        """Returns weights and tokenizer; says in one line what is missing."""

    @abstractmethod
    def digest(self) -> str:
        """Returns a hash of the weights, without loading them if it can."""

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns "" (B, L, D), zeros behind the end, "_mask" (B, L) bool, "_pooled" (B, D').

        Texts that are not remembered are computed, and are not remembered afterwards.
        """
        with plain_tensors():
            columns = [torch.stack(column) for column in zip(*self._rows_of(texts))]
            columns = [c.float() if c.is_floating_point() else c for c in columns]
        return dict(zip(self.values, columns))

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """See `TextEncoder`; texts that are not remembered are computed."""
        with plain_tensors():
            return [int(size) for *_, size in self._rows_of(texts)]

    def _rows_of(self, texts: Sequence[str]) -> list[Row]:
        known = self._known
        fresh = self._compute([text for text in dict.fromkeys(texts) if text not in known])
        return [known[text] if text in known else fresh[text] for text in texts]

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """See `TextEncoder`."""
        return Encoding(values[""], values["_mask"], values["_pooled"])

    def remember(self, texts: Sequence[str], cache: Path, progress: bool = True) -> None:
        """Computes the texts and ∅, or reads what was computed of the same texts before.

        Raises:
            FileNotFoundError: If they have to be computed and the weights cannot be had.
        """
        from safetensors.torch import load_file, save_file

        texts = sorted({"", *texts})
        if all(text in self._known for text in texts):
            return
        key = [type(self).__name__, self.digest(), self.length, COLUMNS, texts]
        path = cache.expanduser() / f"texts-{digest(key)}.safetensors"
        if not path.is_file():
            check_writable(path.parent, "metrics.cache")
            with plain_tensors():
                rows = self._compute(texts, progress)
                columns = [torch.stack(column) for column in zip(*(rows[text] for text in texts))]
            with written_aside(path) as aside:
                save_file(dict(zip(COLUMNS, columns)), aside)
        saved = load_file(path)
        self._known.update(zip(texts, zip(*(saved[name] for name in COLUMNS))))
        self._pretrained = None  # frees the weights

    def _compute(self, texts: Sequence[str], progress: bool = False) -> dict[str, Row]:
        """Returns the rows of distinct texts, on the CPU, floats in fp16."""
        if not texts:
            return {}
        if self._pretrained is None:
            self._pretrained = self.load()
        model = self._pretrained.model.to(self._device)
        ids = dict(zip(texts, self._pretrained.tokenize(texts)))
        found: dict[str, Row] = {}
        with float32(self._device), bar("texts", progress) as shown:
            task = shown.add_task("Reading texts, once", total=len(texts))
            for batch, size in batches(ids, self.length, self._at_once):
                found.update(zip(batch, self._rows(model, [ids[text] for text in batch], size)))
                shown.advance(task, len(batch))
        return found

    def _rows(self, model: nn.Module, ids: list[list[int]], size: int) -> Iterator[Row]:
        rows = [*ids, *[ids[0]] * (self._at_once - len(ids))]  # a short batch is filled up
        rows = [row if len(row) <= size else [*row[: size - 1], row[-1]] for row in rows]
        tokens = torch.tensor([row + [0] * (size - len(row)) for row in rows])
        mask = torch.arange(size) < torch.tensor([len(row) for row in rows])[:, None]
        states, pooled = model(tokens.to(self._device), mask.to(self._device))
        states = (states.float().cpu() * mask[..., None]).half()
        if pooled is None:
            pooled = states.float().sum(1) / mask.sum(1, keepdim=True)
        pooled = pooled.cpu().half()
        if not (states.isfinite().all() and pooled.isfinite().all()):
            raise ValueError(f"{type(self).__name__}: states beyond ±65504; expected those of fp16")
        behind = self.length - size
        states, mask = F.pad(states, (0, 0, 0, behind)), F.pad(mask, (0, behind))
        return zip(states, mask, pooled, torch.tensor([len(row) for row in ids]))

    @property
    def _at_once(self) -> int:
        return ROWS if self._device.type == "cpu" else MORE

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "FrozenText":
        """Follows where the network goes, as the weights are no part of it."""
        device = fn(torch.empty(0)).device
        if device.type != "meta":
            self._device = device
        return super()._apply(fn, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are without weights and without what is remembered."""
        state: Any = super().__getstate__()
        return {**state, "_known": {}, "_pretrained": None}


@contextmanager
def plain_tensors() -> Generator[None]:
    """Tensors that training may keep, whatever mode one is in; autocast cannot stack fp16."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


@contextmanager
def float32(device: torch.device) -> Generator[None]:
    """float32 without TF32 or autocast, whatever the network around it is computed in."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def batches(ids: Mapping[str, list[int]], length: int, rows: int) -> list[tuple[list[str], int]]:
    """Returns up to so many texts at a time, with the tokens that all of them are padded to."""
    by_size: dict[int, list[str]] = {}
    for text, row in ids.items():
        size = min(length, -(-len(row) // MULTIPLE) * MULTIPLE)
        by_size.setdefault(size, []).append(text)
    return [
        (texts[start : start + rows], size)
        for size, texts in sorted(by_size.items())
        for start in range(0, len(texts), rows)
    ]
