"""Captioned bars that know what is true of them."""

import torch
from captioned import COLOURS, PLACES, Captioned

from diffusion.data.sets import Memory

WORDS = {"colour": frozenset(COLOURS), "place": frozenset(PLACES)}


class Bars(Captioned):
    """Its facts are a colour and a place; pictures are called "bar-0" …"""

    pictures, names, truth = None, (), {}

    def setup(self, stage):
        super().setup(stage)
        self.truth = {text: self.said(text) for text in self.texts}
        train = self.train_set
        texts = [[text] for text in train.texts]
        self.train_set = self.pictures = Memory(train.images, train.labels, texts)
        self.names = [f"bar-{i}" for i in range(len(train))]

    def said(self, text):
        return {kind: words & {*text.split()} for kind, words in WORDS.items()}


def config():
    """A captioner of the bars, and its data."""
    image = {"image_size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2, "out_channels": 6}
    network = {"width": 16, "depth": 1, "looks": 1, "heads": 2, "length": 16, "rows": 300}
    network["dropout"] = 0.0
    return {
        "model": {
            "class_path": "Captioner",
            "init_args": {
                "network": {
                    "class_path": "CaptionNetwork",
                    "init_args": {"image": {"class_path": "ViT", "init_args": image}, **network},
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1.0e-2}},
            },
        },
        "data": {"class_path": "facts.Bars", "init_args": {"batch_size": 12, "copies": 2}},
    }


def coloured(n):
    """n pictures of a bar, uint8 (n, 3, 8, 8)."""
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8)
