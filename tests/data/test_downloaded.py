import socket

import pytest

from diffusion.data import CIFAR10, MNIST, FashionMNIST


@pytest.mark.parametrize("data", [MNIST, FashionMNIST, CIFAR10])
def test_missing_files_are_named_with_the_root_and_a_remedy(tmp_path, data):
    absent = data(root=str(tmp_path), download=False)
    absent.prepare_data()
    with pytest.raises(FileNotFoundError) as error:
        absent.setup("fit")
    text = str(error.value)
    first, *others = absent.missing()
    assert text.startswith(f"data.root: {tmp_path}; expected {first} and {len(others)} more of ")
    assert "download: true" in text
    assert ("dataset-fashion-mnist" in text) == (data is FashionMNIST)
    assert "\n" not in text


@pytest.mark.parametrize("data", [FashionMNIST, CIFAR10])
def test_a_failed_download_says_so_in_one_line_and_does_not_hang(tmp_path, monkeypatch, data):
    timeouts = []

    def connect(*args, **kwargs):
        timeouts.append(socket.getdefaulttimeout())
        raise TimeoutError("timed\nout")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FileNotFoundError, match="the download failed") as error:
        data(root=str(tmp_path)).prepare_data()
    assert "\n" not in str(error.value)
    assert timeouts
    assert all(timeout is not None and timeout <= 30 for timeout in timeouts)
    assert socket.getdefaulttimeout() is None


def test_sampling_needs_no_files(tmp_path):
    data = MNIST(root=str(tmp_path / "none"), download=False, samples=3)
    data.setup("predict")
    assert [batch["label"].tolist() for batch in data.predict_dataloader()] == [[0, 1, 2]]
