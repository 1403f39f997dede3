"""Handwritten digits that come with scikit-learn: real data without a download."""

import numpy as np
import torch

from diffusion.data.base import Images
from diffusion.data.sets import Memory


class Digits(Images):
    """1,797 handwritten digits of 8×8 pixels with 17 grey levels in 10 classes.

    1,297 train; the other 500, a tenth or so of them from each class, are validation and test set.
    The split never changes. For the arguments see `Images`.
    """

    shape = (1, 8, 8)
    num_classes, classes = 10, tuple("0123456789")
    levels = 17

    def setup(self, stage: str) -> None:
        """Reads and splits the digits."""
        if self.is_set_up or stage == "predict":
            return
        from sklearn.datasets import load_digits

        pixels, digits = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels.astype(np.uint8)).view(-1, *self.shape)
        labels = torch.from_numpy(digits.astype(np.int64))
        # Evenly spaced places in an order by class take the same share of every class.
        order = np.lexsort((np.random.RandomState(0).permutation(len(labels)), digits))
        held_out = np.zeros(len(labels), dtype=bool)
        held_out[order[np.arange(500) * len(labels) // 500]] = True
        train, test = torch.from_numpy(~held_out), torch.from_numpy(held_out)
        self.train_set = Memory(images[train], labels[train])
        self.val_set = self.test_set = Memory(images[test], labels[test])
