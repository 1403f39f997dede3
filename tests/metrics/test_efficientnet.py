from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from waves import filled, images

import diffusion
from diffusion.metrics.features.efficientnet import network_input
from diffusion.networks.efficientnet_lite0 import Conv, Lite0, by_our_names, load_lite0

ROOT = Path(diffusion.__file__).parents[1] / "data"  # what `make data` has fetched
CAT, ESPRESSO = 285, 967  # ImageNet's Egyptian cat and espresso


@pytest.fixture(scope="module")
def published():
    with np.load(Path(__file__).with_name("published_effnet.npz")) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def trained():
    return load_lite0(ROOT)


def test_gives_what_the_published_code_gives(published):
    net = Lite0().eval()
    shapes = {k: v.shape for k, v in net.state_dict().items() if "tracked" not in k}
    net.load_state_dict(filled(shapes), strict=False)
    with torch.no_grad():
        logits = net(images())
    assert torch.allclose(logits, torch.tensor(published["formula"]), rtol=1e-3, atol=1e-3)


def test_every_published_name_is_known_and_none_is_missing(published):
    ours = Lite0().state_dict()
    assert set(by_our_names(dict.fromkeys(published["names"].tolist()))) == set(ours)
    assert sum(p.numel() for p in Lite0().parameters()) == 4_652_008


@pytest.mark.parametrize(
    ("side", "kernel", "pads"),
    [(8, 3, (0, 1)), (7, 3, (1, 1)), (8, 5, (1, 2)), (7, 5, (2, 2)), (1, 5, (2, 2))],
)
def test_padding_is_tensorflows(side, kernel, pads):
    conv, x = Conv(2, 3, kernel, 2), torch.randn(1, 2, side, side)
    expected = F.conv2d(F.pad(x, pads * 2), conv.weight, stride=2)
    assert torch.allclose(conv(x), expected, atol=1e-6)
    assert expected.shape[-1] == -(-side // 2)


def test_the_network_reads_levels_as_it_was_trained_to():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = network_input(levels, 16)
    assert x.shape == (1, 3, 16, 16)
    assert torch.allclose(x[0, 2].flatten(), (torch.arange(256) - 127) / 128, atol=1e-4)
    edge = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    assert network_input(edge, 32)[..., 4:-4].abs().max() < 0.05  # antialiased to grey
    step = (torch.arange(8) // 4 * 255).to(torch.uint8).expand(1, 3, 8, 8)
    assert network_input(step, 32).aminmax() == (-127 / 128, 1)  # bicubic overshoot is cut


def test_trained_weights_give_what_they_gave_in_the_published_code(published, trained):
    with torch.no_grad():
        assert torch.allclose(trained(images()), torch.tensor(published["trained"]), atol=1e-3)
        features = trained.features(images())
    assert torch.allclose(features, torch.tensor(published["features"]), atol=1e-3)
    assert not trained.training
    assert not any(p.requires_grad for p in trained.parameters())


@pytest.mark.parametrize(("name", "label"), [("chelsea", CAT), ("coffee", ESPRESSO)])
def test_photographs_are_named_rightly(trained, name, label):
    photo = getattr(skimage.data, name)()
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    square = torch.from_numpy(photo[top : top + side, left : left + side].copy()).permute(2, 0, 1)
    with torch.no_grad():
        assert trained(network_input(square[None], 224)).argmax().item() == label
