import pytest
import torch
import torch.nn.functional as F
from waves import filled

from diffusion.metrics import EfficientNet, frechet, kernel
from diffusion.metrics.features import efficientnet as module
from diffusion.metrics.features.base import real_features
from diffusion.metrics.features.probe import principal, probe
from diffusion.metrics.real_images import collect
from diffusion.networks.efficientnet_lite0 import Lite0


class Stripes:
    """Coloured stripes, lying or standing, with noise; 60 to train on, 30 to test."""

    shape, num_classes = (3, 8, 8), 2

    def __init__(self, channels=3, labels=True):
        self.shape, self.labels = (channels, 8, 8), labels
        self.num_classes = 2 if labels else None

    def batches(self, split, batch_size=500):
        n, generator = {"train": 60, "test": 30}[split], torch.Generator().manual_seed(len(split))
        x = torch.rand(n, *self.shape, generator=generator) * 0.6
        label = torch.arange(n) % 2
        bars = ((torch.arange(8) // 2 % 2) * 1.0).expand(8, 8)
        x = x + torch.where(label.view(-1, 1, 1) == 1, bars, bars.T)[:, None] - 0.7
        for i in range(0, n, 17):
            part = {"image": x[i : i + 17], "label": label[i : i + 17]}
            yield part if self.labels else {"image": part["image"]}

    def fingerprint(self, split):
        return f"{split}{self.shape}"


@pytest.fixture(scope="module", autouse=True)
def formula():
    """The network with weights by a formula, and no package."""
    net = Lite0().eval().requires_grad_(False)
    shapes = {k: v.shape for k, v in net.state_dict().items() if "tracked" not in k}
    net.load_state_dict(filled(shapes), strict=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_lite0", lambda root: net)
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("effnet")


@pytest.fixture(scope="module")
def extractor(kept):
    """Fitted once for all tests."""
    out = EfficientNet(size=32, features=5)
    with torch.inference_mode():  # as in Lightning's test
        out.prepare(Stripes(), kept, progress=False)
    return out


def test_features_are_the_main_directions_of_the_training_images(extractor):
    images, _ = collect(Stripes(), "train")
    features = extractor(images)[0]
    assert features.shape == (60, 5)
    assert features.dtype == torch.float32
    raw = extractor.net.features(module.network_input(images, 32)).double()
    _, s, v = torch.linalg.svd(raw - raw.mean(0), full_matrices=False)
    assert torch.allclose(features.double().std(0), s[:5] / 59**0.5, rtol=1e-3)
    aligned = ((raw - raw.mean(0)) @ v[:5].T).abs()
    assert torch.allclose(features.double().abs(), aligned, atol=1e-2 * s[0].item() / 60**0.5)
    share = (s[:5].square().sum() / s.square().sum()).item()
    assert extractor.explained == pytest.approx(share, rel=1e-4)


def test_reference_and_floor_are_stored_on_the_way(extractor, kept, monkeypatch):
    expected = {s: extractor(collect(Stripes(), s)[0])[0] for s in ("train", "test")}
    monkeypatch.setattr(EfficientNet, "__call__", lambda *_: pytest.fail("computed again"))
    for split, features in expected.items():
        found = real_features(Stripes(), split, extractor.reference, extractor, kept)
        assert torch.allclose(found, features, atol=1e-4)


def test_logits_are_of_the_datas_classes(extractor):
    images, labels = collect(Stripes(), "test")
    logits = extractor(images)[1]
    assert logits.shape == (30, 2)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(extractor.accuracy)
    assert accuracy > 0.9


def test_second_prepare_only_loads(extractor, kept, monkeypatch):
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("fitted again"))
    again = EfficientNet(size=32, features=5)
    again.prepare(Stripes(), kept)
    assert again.describe() == extractor.describe()
    assert len(list(kept.glob("effnet-*.pt"))) == 1
    assert extractor.describe() == {
        "name": "effnet",
        "fingerprint": extractor.fingerprint,
        "accuracy": extractor.accuracy,
        "size": 32,
        "directions": 5,
        "explained": extractor.explained,
    }


def test_other_settings_are_other_features(extractor, tmp_path):
    for settings in ({"size": 64, "features": 5}, {"size": 32, "features": 4}):
        other = EfficientNet(**settings)
        other.prepare(Stripes(), tmp_path, progress=False)
        assert other.fingerprint != extractor.fingerprint
    assert len(list(tmp_path.glob("effnet-*.pt"))) == 2


def test_a_missing_class_is_seen(extractor, kept):
    reference = real_features(Stripes(), "train", "all", extractor, kept)
    images, labels = collect(Stripes(), "test")
    features = extractor(images)[0]
    for distance in (frechet, kernel):
        assert distance(features[labels == 0], reference) > distance(features[:15], reference)


def test_grey_images_without_labels(tmp_path):
    extractor = EfficientNet(size=32, features=3)
    extractor.prepare(Stripes(channels=1, labels=False), tmp_path, progress=False)
    features, logits = extractor(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert features.shape == (2, 3)
    assert logits.shape == (2, 0)
    assert extractor.accuracy is None


def test_batches_do_not_matter(extractor):
    images = collect(Stripes(), "train")[0]
    whole = extractor(images)[0]
    parts = torch.cat([extractor(part)[0] for part in images.split(7)])
    assert torch.allclose(whole, parts, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"size": 100}, r"EfficientNet.size: 100; expected a multiple of 32"),
        ({"size": 0}, r"EfficientNet.size: 0; expected a multiple of 32"),
        ({"features": 0}, r"EfficientNet.features: 0; expected 1 … 1280"),
        ({"features": 1281}, r"EfficientNet.features: 1281; expected 1 … 1280"),
    ],
)
def test_settings_are_checked(settings, line):
    with pytest.raises(ValueError, match=line):
        EfficientNet(**settings)


def test_data_is_checked(tmp_path):
    with pytest.raises(ValueError, match="images of 2 channels; expected 1 or 3"):
        EfficientNet().prepare(Stripes(channels=2), tmp_path)
    with pytest.raises(ValueError, match="60 directions of 60 images; expected fewer"):
        EfficientNet(size=32, features=60).prepare(Stripes(), tmp_path, progress=False)


def test_principal_directions_of_a_known_covariance():
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    scales = torch.tensor([5.0, 3, 2, 1e-3, 1e-3, 1e-3], dtype=torch.float64)
    x = torch.randn(4000, 6, dtype=torch.float64) * scales @ basis.T + 7
    mean, vectors, share = principal(x.float(), 3)
    assert torch.allclose(mean.double(), x.mean(0), atol=1e-4)
    assert torch.allclose(vectors.T @ vectors, torch.eye(3), atol=1e-5)
    assert torch.allclose(
        (vectors.double().T @ basis[:, :3]).abs().diag(), torch.ones(3).double(), atol=1e-2
    )
    assert share == pytest.approx(1, abs=1e-5)
    again = principal(x.float(), 3)[1]
    assert torch.equal(again, vectors)


def test_probe_is_logistic_regression():
    """As scikit-learn's, whose C is one over the penalty of the sum."""
    from sklearn.linear_model import LogisticRegression

    x = torch.randn(300, 4) * torch.tensor([1.0, 10, 0.1, 1]) + 3
    y = (x[:, 0] + x[:, 1] / 10 + torch.randn(300) > 4).long() + (x[:, 2] > 3.1).long()
    w, b = probe(x, y, 3, decay=0.02)
    z = ((x - x.mean(0)) / x.std(0)).double().numpy()
    other = LogisticRegression(C=1 / (0.02 * len(x)), tol=1e-8, max_iter=10_000).fit(z, y.numpy())
    ours = F.linear(x, w, b).softmax(1).double()
    assert torch.allclose(ours, torch.from_numpy(other.predict_proba(z)), atol=2e-3)
