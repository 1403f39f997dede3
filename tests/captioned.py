"""Small pictures with captions, made on the spot: data for what reads texts."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.data import Images, ImageSet
from diffusion.networks import ClassifierNetwork, Encoding, TextEncoder, Towers, ViT
from diffusion.networks.text.hashed_words import words
from diffusion.spec import DataSpec
from diffusion.systems.embeddings.clip_image import FrozenClipImage
from diffusion.systems.embeddings.clip_text import FrozenClipText
from diffusion.systems.embeddings.person_embedding import FrozenPersonEmbedding
from diffusion.systems.frozen import FrozenClip

COLOURS = {"red": (255, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 255)}
PLACES = {"left": (slice(None), slice(0, 4)), "right": (slice(None), slice(4, 8))}


class Pictures(ImageSet):
    """Pictures in one tensor, and a caption of each."""

    def __init__(self, images: Tensor, texts: list[str], labels: Tensor) -> None:
        self.images, self.texts, self.labels = images, texts, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        rows = torch.as_tensor(indices)
        texts = [self.texts[i] for i in indices]
        return {"image": self.images[rows], "label": self.labels[rows], "text": texts}

    def digest(self) -> bytes:
        return b"captioned"


class Captioned(Images):
    """8 × 8 pictures of a bar: six captions, "a red bar on the left" …, `copies` pictures each."""

    shape, num_classes, levels = (3, 8, 8), 3, 256

    def __init__(self, copies: int = 10, **of: Any) -> None:
        super().__init__(**of)
        self.copies = copies

    def setup(self, stage: str) -> None:
        captions = [f"a {colour} bar on the {place}" for colour in COLOURS for place in PLACES]
        self.texts = sorted(captions)
        self.train_set, self.val_set, self.test_set = (self._draw(captions, k) for k in range(3))

    def _draw(self, captions: list[str], seed: int) -> Pictures:
        random = torch.Generator().manual_seed(seed)
        n = len(captions) * self.copies
        images = torch.randint(60, 140, (n, 3, 8, 8), dtype=torch.uint8, generator=random)
        texts, labels = [], torch.empty(n, dtype=torch.int64)
        for i in range(n):
            text = captions[i % len(captions)]
            _, colour, _, _, _, place = text.split()
            rows, columns = PLACES[place]
            images[i, :, rows, columns] = torch.tensor(COLOURS[colour], dtype=torch.uint8)[
                :, None, None
            ]
            texts.append(text)
            labels[i] = list(COLOURS).index(colour)
        return Pictures(images, texts, labels)

    def request(self, numbers: Sequence[int]) -> dict[str, Any]:
        batch = super().request(numbers)
        return {**batch, "text": [self.texts[i % len(self.texts)] for i in numbers]}


class Bag(TextEncoder):
    """The mean of learned vectors of the words: learns in no time."""

    values = ("",)

    def __init__(self, width: int = 16, length: int = 8, rows: int = 1024) -> None:
        super().__init__()
        self.width = self.pooled_width = width
        self.length, self.rows = length, rows
        self.embedding = nn.Embedding(rows, width)

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        ids = torch.zeros(len(texts), self.length, dtype=torch.int64)
        for row, text in enumerate(texts):
            for column, word in enumerate(words(text)[: self.length]):
                ids[row, column] = 1 + zlib.crc32(word.encode()) % (self.rows - 1)
        return {"": ids}

    def sizes(self, texts: Sequence[str]) -> list[int]:
        return [len(words(text)) for text in texts]

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        states = self.embedding(values[""])
        return Encoding(states, values[""] > 0, states.mean(1))


class Numbers(TextEncoder):
    """What a text of `width` numbers says is its one token and its vector; ∅ is zeros."""

    values = ("", "_mask", "_pooled")

    def __init__(self, width: int, length: int = 1) -> None:
        super().__init__()
        self.width = self.pooled_width = width
        self.length = length

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        rows = [[float(word) for word in text.split()] or [0.0] * self.width for text in texts]
        pooled = torch.tensor(rows)
        mask = torch.ones(len(texts), 1, dtype=torch.bool)
        return {"": pooled[:, None], "_mask": mask, "_pooled": pooled}

    def sizes(self, texts: Sequence[str]) -> list[int]:
        return [1] * len(texts)

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        return Encoding(values[""], values["_mask"], values["_pooled"])


class SmallClip(FrozenClip):
    """A CLIP of small pictures whose weights are drawn once for all."""

    def __init__(self, size: int = 8, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image = ClassifierNetwork(
                image_size=size, num_classes=12, channels=8, multipliers=(1,), attention=(),
                groups=4, head_width=4, blocks=1,
            )  # fmt: skip
            towers = Towers(image, Bag())
        super().__init__(towers, None, DataSpec("Small", (3, size, size), captioned=True))


class SmallClipImage(FrozenClipImage):
    """Its embeddings of pictures."""

    def __init__(self, size: int = 8, seed: int = 0) -> None:
        super().__init__(SmallClip(size, seed))


class SmallClipText(FrozenClipText):
    """And of texts."""

    def __init__(self, size: int = 8, seed: int = 0) -> None:
        super().__init__(SmallClip(size, seed))


class SmallIdentity(FrozenPersonEmbedding):
    """An encoder of identities of small pictures, whose weights are drawn once for all."""

    def __init__(self, size: int = 8, seed: int = 0, width: int = 6, channels: int = 3) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = ViT(size, channels, 4, width=8, depth=1, heads=2, out_channels=width)
        super().__init__(net, width, DataSpec("Small", (channels, size, size)))
