import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.data import MNIST, FashionMNIST

DATA = Path(__file__).parents[2] / "data"  # what `make data` has fetched


def idx(values):
    header = struct.pack(f">{1 + values.ndim}I", 2048 + values.ndim, *values.shape)
    return header + values.tobytes()


def write_idx(folder, zipped):
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for part, n in (("train", 7), ("t10k", 3)):
        images = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, n, dtype=np.uint8)
        written[part] = images, labels
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name, content = f"{part}-{kind}-ubyte", idx(values)
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return written


@pytest.mark.parametrize("data", [MNIST, FashionMNIST])
@pytest.mark.parametrize(
    ("layout", "zipped"), [("raw", False), ("raw", True), ("", False), ("", True)]
)
def test_idx_files_are_read_in_every_layout(tmp_path, data, layout, zipped):
    folder = tmp_path / data.__name__ / "raw" if layout else tmp_path
    written = write_idx(folder, zipped)
    images = data(root=str(tmp_path), download=False)
    images.prepare_data()
    images.setup("fit")
    for part, split in (("train", images.train_set), ("t10k", images.test_set)):
        assert np.array_equal(split.images.numpy(), written[part][0][:, None])
        assert split.labels.tolist() == written[part][1].tolist()
        assert split.labels.dtype == torch.int64
    assert images.val_set is images.test_set
    assert images.shape == (1, 28, 28)


def test_size_pads_with_zeros_around(tmp_path):
    written = write_idx(tmp_path, zipped=False)
    data = MNIST(root=str(tmp_path), size=33)
    data.setup("fit")
    images = data.train_set.images
    assert tuple(images.shape[1:]) == data.shape == (1, 33, 33)
    assert np.array_equal(images[:, 0, 2:30, 2:30].numpy(), written["train"][0])
    assert images.sum(dtype=torch.int64) == written["train"][0].sum(dtype=np.int64)
    native = MNIST(root=str(tmp_path))
    assert data.fingerprint("train") != native.fingerprint("train")
    with pytest.raises(ValueError, match="size: 27; expected null or at least 28"):
        MNIST(size=27)


def cut(content):
    return content[:-5]


def other(content):
    return b"<html>not here</html>"


@pytest.mark.parametrize("spoil", [cut, other, lambda _: b""])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_corrupt_file_is_named_in_one_line(tmp_path, name, zipped, spoil):
    write_idx(tmp_path, zipped)
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=path.name) as error:
        MNIST(root=str(tmp_path)).setup("fit")
    assert "\n" not in str(error.value)


def test_a_cut_idx_file_inside_an_intact_gzip_file(tmp_path):
    write_idx(tmp_path, zipped=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(ValueError, match="14 bytes instead of 15"):
        MNIST(root=str(tmp_path)).setup("fit")


def test_labels_and_images_must_fit_together(tmp_path):
    write_idx(tmp_path, zipped=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(6, dtype=np.uint8)))
    with pytest.raises(ValueError, match="6 labels; expected 7"):
        MNIST(root=str(tmp_path)).setup("fit")
    path.write_bytes(idx(np.full(7, 10, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"label 10; expected 0 \.\. 9"):
        MNIST(root=str(tmp_path)).setup("fit")


def test_one_missing_file_is_the_one_named(tmp_path):
    write_idx(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="expected t10k-labels-idx1-ubyte of MNIST"):
        MNIST(root=str(tmp_path)).setup("fit")


def test_the_real_fashion_mnist_has_6000_of_each_class():
    data = FashionMNIST(root=str(DATA), download=False)
    data.setup("fit")
    assert data.train_set.images.shape == (60_000, 1, 28, 28)
    assert torch.bincount(data.train_set.labels).tolist() == [6000] * 10
    assert torch.bincount(data.test_set.labels).tolist() == [1000] * 10
