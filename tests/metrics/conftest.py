import pytest
import torch

from diffusion.data import Digits
from diffusion.metrics import LeNet


@pytest.fixture(scope="session")
def digits():
    return Digits()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def lenet(digits, cache):
    """Trained once for all tests."""
    extractor = LeNet()
    extractor.prepare(digits, cache, progress=False)
    return extractor


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
