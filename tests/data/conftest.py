"""Pictures whose label is their number, in runs of several processes without the processes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import Images, Memory


class Numbered(Images):
    shape = (1, 1, 2)

    def __init__(self, n=37, **kwargs):
        super().__init__(**kwargs)
        self.n = n
        self.num_classes = n

    def setup(self, stage):
        numbers = torch.arange(self.n)
        # Dark on the left and bright on the right, unless mirrored.
        images = torch.stack([numbers, 255 - numbers], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
        self.train_set = self.val_set = self.test_set = Memory(images, numbers)


@pytest.fixture
def numbered():
    def make(rank=0, world=1, step=0, accumulate=1, **kwargs):
        data = Numbered(**kwargs)
        data.setup("fit")
        data.trainer = SimpleNamespace(
            global_rank=rank,
            world_size=world,
            global_step=step,
            accumulate_grad_batches=accumulate,
        )
        return data

    return make


@pytest.fixture
def photo():
    """Smooth pictures that no two orientations of look alike."""

    def make(width, height, seed=0):
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return make
