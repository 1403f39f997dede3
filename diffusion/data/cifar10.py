"""CIFAR-10."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion.data.downloaded import Downloaded


class CIFAR10(Downloaded):
    """50,000 + 10,000 colour pictures of 32×32 pixels in 10 classes, Krizhevsky (2009).

    The files are those of torchvision, in `root`/cifar-10-batches-py; their checksums are checked,
    as they are pickles. For the arguments see `Downloaded` and `Images`.
    """

    native = (3, 32, 32)
    classes = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
    advice = "unpack cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html there"

    def missing(self) -> list[str]:
        """Returns the batch files that are not in `root`/cifar-10-batches-py."""
        folder = "cifar-10-batches-py"
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
        root = Path(self.root).expanduser()
        return [f"{folder}/{name}" for name in names if not (root / folder / name).is_file()]

    def fetch(self) -> None:
        """Downloads with torchvision."""
        from torchvision.datasets import CIFAR10

        CIFAR10(self.root, download=True)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Returns the pictures and labels of one split.

        Raises:
            ValueError: If a checksum is wrong.
        """
        from torchvision.datasets import CIFAR10

        try:
            cifar = CIFAR10(self.root, train=train)
        except RuntimeError:
            raise ValueError(
                f"data.root: {self.root}; expected files with torchvision's checksums: delete "
                "cifar-10-batches-py and get it again"
            ) from None
        images = torch.from_numpy(cifar.data).permute(0, 3, 1, 2).contiguous()
        return images, torch.tensor(cifar.targets)
