import pytest
import torch
from torch import nn

from diffusion.metrics import VGG16


class Pictures:
    shape = (1, 16, 16)
    num_classes = None


class Narrow(nn.Module):
    """torchvision's network with one channel a layer, so that a test may have it."""

    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for count in (2, 2, 3, 3, 3):
            for _ in range(count):
                layers += [nn.Conv2d(width, 1, 3, padding=1), nn.ReLU()]
                width = 1
            layers.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        parts = [nn.Linear(49, 6), nn.ReLU(), nn.Dropout()]
        parts += [nn.Linear(6, 5), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*parts, nn.Linear(5, 4))

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@pytest.fixture
def narrow():
    return Narrow()


@pytest.fixture
def weights(tmp_path, narrow, monkeypatch):
    monkeypatch.setattr("torchvision.models.vgg16", Narrow)
    torch.save(narrow.state_dict(), tmp_path / "vgg16.pth")
    return tmp_path / "vgg16.pth"


def test_features_are_those_after_the_second_layer(weights, narrow, tmp_path):
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as resized,
    )

    extractor = VGG16(str(weights))
    before = torch.get_rng_state()
    extractor.prepare(Pictures(), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(extractor.fingerprint) == 16
    grey = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    features, logits = extractor(grey)
    assert logits.shape == (3, 0)
    colour, _ = extractor(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(colour, features)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = resized(grey.repeat(1, 3, 1, 1).float(), (224, 224), align_corners=False) / 255
    x = narrow.avgpool(narrow.features((x - mean) / std)).flatten(1)
    linear = narrow.classifier
    expected = linear[3](linear[0](x).relu()).relu()
    torch.testing.assert_close(features, expected.detach(), atol=1e-5, rtol=1e-4)


def test_missing_and_broken_weights_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    command = r"VGG16.weights: .*checkpoints/vgg16-397923af.pth .*curl -L --create-dirs -o"
    with pytest.raises(FileNotFoundError, match=command) as error:
        VGG16().prepare(Pictures(), tmp_path)
    assert "\n" not in str(error.value)
    torch.save({"x": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth is broken or another's"):
        VGG16(str(tmp_path / "bad.pth")).prepare(Pictures(), tmp_path)


def test_channels_are_checked(tmp_path):
    class Two(Pictures):
        shape = (2, 16, 16)

    with pytest.raises(ValueError, match="2 channels; expected 1 or 3"):
        VGG16().prepare(Two(), tmp_path)
