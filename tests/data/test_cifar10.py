import hashlib
import pickle
from itertools import chain

import numpy as np
import pytest

from diffusion.data import CIFAR10


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    import torchvision.datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    written, sums = {}, {}

    def dump(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = random.integers(0, 256, (2, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, 2).tolist()
        written[name] = pixels, labels
        dump(name, {"data": pixels, "labels": labels})
    dump("batches.meta", {"label_names": list("abcdefghij")})
    reader = torchvision.datasets.CIFAR10
    train = [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)]
    monkeypatch.setattr(reader, "train_list", train)
    monkeypatch.setattr(reader, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setitem(reader.meta, "md5", sums["batches.meta"])
    return tmp_path, written


def test_cifar_is_read_channels_first_and_in_order(cifar):
    root, written = cifar
    data = CIFAR10(root=str(root), download=False)
    data.setup("fit")
    train = [written[f"data_batch_{i}"] for i in range(1, 6)]
    expected = np.concatenate([pixels for pixels, _ in train]).reshape(-1, 3, 32, 32)
    assert np.array_equal(data.train_set.images.numpy(), expected)
    assert data.train_set.labels.tolist() == list(
        chain.from_iterable(labels for _, labels in train)
    )
    assert data.test_set.labels.tolist() == written["test_batch"][1]


def test_a_corrupt_cifar_file_is_refused_in_one_line(cifar):
    root, _ = cifar
    path = root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"expected files with torchvision's checksums") as error:
        CIFAR10(root=str(root), download=False).setup("fit")
    assert "\n" not in str(error.value)
