import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from diffusion.data import Digits
from diffusion.metrics import (
    Extractor,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    SampleBatch,
    frechet,
    kernel,
)
from diffusion.metrics.features.base import real_features
from diffusion.metrics.real_images import collect, random_rows


class Projection(nn.Module):
    """A fixed feature network that all three libraries are given."""

    def __init__(self):
        super().__init__()
        self.num_features = 16
        weight = torch.randn(3 * 8 * 8, 16, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight / 14)

    def forward(self, x):
        return (x.flatten(1).float() / 127.5 - 1) @ self.weight


class Pictures(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def pictures():
    first = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8)
    second = (torch.randint(0, 256, (200, 3, 8, 8)) * 0.8 + 20).to(torch.uint8)
    return first, second


def whitened(n, d):
    """Rows with mean exactly 0 and covariance exactly 1."""
    x = torch.randn(n, d, dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)).T)


def test_frechet_of_gaussians_in_closed_form():
    x = whitened(500, 8)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, x + 2) == pytest.approx(4 * 8)
    assert frechet(x, 3 * x) == pytest.approx(4 * 8)  # (3 − 1)² a dimension
    scale = torch.arange(1.0, 9, dtype=torch.float64)
    assert frechet(x, x * scale + 1) == pytest.approx(((scale - 1) ** 2).sum().item() + 8)


def test_frechet_of_singular_covariances():
    x = torch.randn(40, 64)
    x[:, :10] = 0
    y = torch.randn(30, 64)
    assert frechet(x, x) == pytest.approx(0, abs=1e-3)
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-3)
    assert frechet(torch.zeros(5, 4), torch.ones(5, 4)) == pytest.approx(4)


def test_frechet_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    first, second = pictures()
    net = Projection()
    metric = FrechetInceptionDistance(
        feature=net, input_img_size=(3, 8, 8), antialias=False, normalize=False
    )
    metric.update(first, real=True)
    metric.update(second, real=False)
    assert frechet(net(first), net(second)) == pytest.approx(metric.compute().item(), abs=1e-3)


def test_distances_are_those_of_torch_fidelity():
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Registered(FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)
            self.net = Projection()

        @staticmethod
        def get_provided_features_list():
            return ("16",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "16"

        @staticmethod
        def can_be_compiled():
            return False

        def forward(self, x):
            return (self.net(x),)

    torch_fidelity.register_feature_extractor("projection", Registered)
    first, second = pictures()
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(first),
        input2=Pictures(second),
        feature_extractor="projection",
        fid=True,
        kid=True,
        kid_subset_size=200,
        rng_seed=0,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    f, g = Projection()(first), Projection()(second)
    assert frechet(f, g) == pytest.approx(theirs["frechet_inception_distance"], abs=1e-3)
    assert kernel(f, g) == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-3)


def test_kernel_is_that_of_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    first, second = pictures()
    net = Projection()
    metric = KernelInceptionDistance(feature=net, subsets=1, subset_size=200)
    metric.update(first[:200], real=True)
    metric.update(second, real=False)
    ours = kernel(net(first[:200]), net(second))
    assert ours == pytest.approx(metric.compute()[0].item(), abs=1e-3)


def test_kernel_is_unbiased():
    values = [kernel(torch.randn(50, 8), torch.randn(50, 8)) for _ in range(200)]
    assert min(values) < 0 < max(values)
    assert abs(sum(values) / 200) < 3 * torch.tensor(values).std().item() / 200**0.5
    far = kernel(torch.randn(50, 8), torch.randn(50, 8) + 2)
    assert far > 10 * max(values)


def test_kernel_of_a_set_with_itself():
    x = torch.randn(600, 8)
    assert abs(kernel(x, x)) < 0.05
    assert kernel(x, x) <= 0  # the diagonal, which unbiased sums leave out, is the largest


def test_same_call_same_number_and_global_noise_untouched():
    f, g = torch.randn(80, 8), torch.randn(60, 8)
    before = torch.get_rng_state()
    assert kernel(f, g) == kernel(f, g)
    assert frechet(f, g) == frechet(f, g)
    assert torch.equal(torch.get_rng_state(), before)


class Logits(Extractor):
    """Pixels as features and as logits."""

    name, distance, kernel, score, fingerprint = "pixels", "fd_pixels", "kid_pixels", "is", "p"

    def __init__(self, scale=1.0):
        self.scale = scale

    def prepare(self, data, cache, progress=True):
        pass

    def __call__(self, images):
        x = images.flatten(1).float() / 255
        return x, self.scale * x


def updated(measure, images, batch_size, data, cache, index=None):
    measure.prepare(data, cache)
    index = torch.arange(len(images)) if index is None else index
    for rows in index.split(batch_size):
        measure.update(SampleBatch(images[rows], rows))
    return measure.figures()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 600])
def test_sums_and_gathered_features_are_the_distances_of_all_rows(batch_size, digits, tmp_path):
    """In any order and any batches; of the first 500 too, since so many are held out."""
    images, extractor = collect(digits, "train")[0][:600], Logits()
    f, g, real = (
        extractor(images)[0],
        *(real_features(digits, split, "all", extractor, tmp_path) for split in ("train", "test")),
    )
    order = torch.randperm(600)
    for measure, distance in ((FrechetDistance, frechet), (KernelDistance, kernel)):
        found = updated(measure(extractor), images, batch_size, digits, tmp_path, order)
        name = {"frechet": "fd", "kernel": "kid"}[distance.__name__]
        assert set(found) == {f"{name}_pixels{end}" for end in ("@600", "@500", "_floor@500")}
        for n in (600, 500):
            value = found[f"{name}_pixels@{n}"].value
            assert value == pytest.approx(distance(f[:n], g), rel=1e-6)
        floor = found[f"{name}_pixels_floor@500"]
        assert floor.value == pytest.approx(distance(random_rows(real, 500), g), rel=1e-6)
        assert found[f"{name}_pixels@500"].baseline == floor.value
        assert found[f"{name}_pixels@600"].baseline is None
        assert floor.real


def test_sums_lose_no_digits_to_a_large_mean(digits, tmp_path):
    class Far(Logits):
        def __call__(self, images):
            x = super().__call__(images)[0].double() + 1e6
            return x, x

    images = collect(digits, "train")[0][:400]
    near = updated(FrechetDistance(Logits()), images, 50, digits, tmp_path / "a")
    far = updated(FrechetDistance(Far()), images, 50, digits, tmp_path / "b")
    assert far["fd_pixels@400"].value == pytest.approx(near["fd_pixels@400"].value, rel=1e-5)


@pytest.mark.parametrize(("n", "splits"), [(40, 10), (57, 10), (23, 1), (9, 9)])
def test_inception_score_is_that_of_torch_fidelity(n, splits, digits, tmp_path):
    from torch_fidelity.metric_isc import isc_features_to_metric

    images, extractor = collect(digits, "train")[0][:n], Logits(20.0)
    theirs = isc_features_to_metric(extractor(images)[1], splits, shuffle=True, rng_seed=0)
    for batch_size in (n, 4):
        score = InceptionScore(extractor, n, splits)
        found = updated(score, images, batch_size, digits, tmp_path, torch.randperm(n))
        assert found[f"is@{n}"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)


def test_inception_score_ends(tmp_path):
    def score(images, scale):
        found = InceptionScore(Logits(scale), len(images), 1)
        return updated(found, images, 50, Digits(), tmp_path)[f"is@{len(images)}"].value

    sure = (255 * torch.eye(10)).repeat(20, 1).to(torch.uint8).view(-1, 1, 1, 10)
    assert score(sure, 100.0) == pytest.approx(10)
    assert score(sure, 0.0) == pytest.approx(1)


def test_metrics_start_again_and_number_samples_themselves(digits, tmp_path):
    images = collect(digits, "train")[0][:60]
    measure, numbers = KernelDistance(Logits()), torch.arange(60)
    measure.prepare(digits, tmp_path)
    values = []
    for index in (numbers, None):
        for rows in numbers.split(25):
            measure.update(SampleBatch(images[rows], None if index is None else rows))
        values.append(measure.compute()["kid_pixels@60"].item())
        measure.reset()
    assert values[0] == values[1]
    assert measure(SampleBatch(images))["kid_pixels@60"].item() == pytest.approx(values[0])


@pytest.mark.parametrize(
    ("f", "g"), [((1, 4), (5, 4)), ((5, 4), (1, 4)), ((5, 4), (5, 3)), ((5,), (5,))]
)
def test_wrong_shapes_are_named(f, g):
    for distance in (frechet, kernel):
        with pytest.raises(ValueError, match="expected"):
            distance(torch.zeros(f), torch.zeros(g))


def test_too_many_splits():
    with pytest.raises(ValueError, match=r"InceptionScore.splits: 10; expected 1 … 4"):
        InceptionScore(Logits(), 4)
