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
    def make(rank=0, world=1, read=0, trainer=None, **kwargs):
        data = Numbered(**kwargs)
        data.setup("fit")
        settings = {
            "global_rank": rank,
            "world_size": world,
            "global_step": 0,
            "accumulate_grad_batches": 1,
            "max_epochs": -1,
            "min_epochs": None,
            "check_val_every_n_epoch": None,
            "limit_train_batches": 1.0,
            "overfit_batches": 0.0,
            "training": True,
        }
        data.trainer = SimpleNamespace(**settings | (trainer or {}))
        data.load_state_dict({"read": read})
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
