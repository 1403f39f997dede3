import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from diffusion.metrics import frechet, inception_score, kernel


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


def test_inception_score_ends():
    sure = 100 * torch.eye(10).repeat(20, 1)
    assert inception_score(sure, splits=1) == (pytest.approx(10), pytest.approx(0))
    assert inception_score(torch.zeros(100, 10))[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("f", "g"), [((1, 4), (5, 4)), ((5, 4), (1, 4)), ((5, 4), (5, 3)), ((5,), (5,))]
)
def test_wrong_shapes_are_named(f, g):
    for distance in (frechet, kernel):
        with pytest.raises(ValueError, match="expected"):
            distance(torch.zeros(f), torch.zeros(g))


def test_too_many_splits():
    with pytest.raises(ValueError, match="splits 10, expected 1 to 4"):
        inception_score(torch.zeros(4, 3))
