import numpy as np
import pytest
import torch

from diffusion.metrics import manifold
from diffusion.metrics.fidelity import Fidelity, sets
from diffusion.metrics.manifold import density_coverage, f1, precision_recall


def expected_coverage(m, n, k=5):
    """1 − Π (n − 1 − i)/(m + n − 1 − i): a ball is missed if the k nearest of all are real."""
    missed = 1.0
    for i in range(k):
        missed *= (n - 1 - i) / (m + n - 1 - i)
    return 1 - missed


def distances(x, y):
    """One by one, in float64."""
    return torch.tensor([[(a - b).square().sum().sqrt() for b in y.double()] for a in x.double()])


def radii(x, k):
    """Distance of each row to its k-th nearest other row."""
    out = []
    for i, row in enumerate(distances(x, x)):
        others = torch.cat([row[:i], row[i + 1 :]])
        out.append(others.sort().values[k - 1])
    return torch.stack(out)


def inside(y, x, k):
    """[j, i]: is y_j in the closed ball of x_i?"""
    return distances(y, x) <= radii(x, k)


def published(real, fake, k):
    """Density and coverage as Naeem et al. 2020 publish them, in numpy: balls are open."""
    real, fake = real.double().numpy(), fake.double().numpy()
    of_real = np.linalg.norm(real[:, None] - real[None], axis=2)
    radius = np.partition(of_real, k, axis=1)[:, : k + 1].max(1)
    to_fake = np.linalg.norm(real[:, None] - fake[None], axis=2)
    density = (to_fake < radius[:, None]).sum(0).mean() / k
    return density, (to_fake.min(1) < radius).mean()


@pytest.fixture
def far():
    """Fewer generated than real rows, spread less and moved."""
    return torch.randn(23, 4) * 0.8 + 0.7, torch.randn(31, 4)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("chunk", [2**25, 100])
def test_all_four_are_brute_force(far, k, chunk, monkeypatch):
    monkeypatch.setattr(manifold, "CHUNK", chunk)
    generated, real = far
    precision = inside(generated, real, k).any(1).double().mean().item()
    recall = inside(real, generated, k).any(1).double().mean().item()
    assert precision != recall
    assert precision_recall(generated, real, k) == (precision, recall)
    assert density_coverage(generated, real, k) == pytest.approx(published(real, generated, k))


def test_copies_of_the_last_neighbour_are_in_closed_balls_only():
    """Real images copied: the published codes differ, and each is followed."""
    x = torch.randn(60, 84) + 20
    shuffled = x[torch.randperm(60)]
    assert published(x, shuffled, 5) == (1, 1)
    assert density_coverage(shuffled, x, 5) == (1, 1)  # closed balls have (k + 1) / k, 1.2
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    assert density_coverage(line + 1, line, 1) == published(line, line + 1, 1) == (4 / 5, 4 / 5)
    assert density_coverage(line[:1], line, 1) == published(line, line[:1], 1) == (1, 1 / 5)
    assert precision_recall(line + 1, line, 1) == (1, 1)
    assert precision_recall(line + 2, line, 1) == (4 / 5, 4 / 5)


def test_balls_of_duplicates_are_empty():
    x = torch.cat([torch.randn(1, 84).expand(7, 84) * 50, torch.randn(20, 84) * 50])
    density, coverage = density_coverage(x[:7], x, 5)
    assert (density, coverage) == pytest.approx(published(x, x[:7], 5))


def test_on_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii 1, 1, 2, 7
    generated = torch.tensor([[-0.5], [0.5], [20.0]])  # radii 1, 1, 19.5
    # −0.5 lies in the ball of 0; 0.5 in those of 0 and 1; 20 in none.
    assert precision_recall(generated, real, 1)[0] == 2 / 3
    # 0 and 1 lie in the ball of 0.5; 3 and 10 in that of 20.
    assert precision_recall(generated, real, 1)[1] == 1
    assert density_coverage(generated, real, 1) == (3 / 3, 2 / 4)
    assert precision_recall(real, generated, 1) == (1, 2 / 3)


def test_one_real_outlier_raises_precision_but_not_coverage():
    """Naeem et al. 2020, figure 2: precision believes an outlier's huge ball."""
    real = torch.cat([torch.randn(100, 2), torch.tensor([[60.0, 0.0]])])
    generated = torch.randn(100, 2) + torch.tensor([20.0, 0.0])
    assert precision_recall(generated, real)[0] == 1
    density, coverage = density_coverage(generated, real)
    assert density == pytest.approx(1 / 5)
    assert coverage == 1 / 101


@pytest.mark.parametrize(("m", "n", "k"), [(40, 40, 5), (25, 60, 3)])
def test_expectations_of_one_distribution(m, n, k):
    found = torch.tensor(
        [density_coverage(torch.randn(m, 3), torch.randn(n, 3), k) for _ in range(300)]
    )
    error = found.std(0) / 300**0.5
    assert found[:, 0].mean().item() == pytest.approx(1, abs=3 * error[0].item())
    assert found[:, 1].mean().item() == pytest.approx(
        expected_coverage(m, n, k), abs=3 * error[1].item()
    )


def test_expected_coverage_is_the_papers():
    n = 10
    assert expected_coverage(n, n, 2) == pytest.approx(1 - (9 * 8) / (19 * 18))
    assert expected_coverage(10_000, 10_000) == pytest.approx(1 - 2**-5, abs=1e-4)


def test_copies_have_everything_and_strangers_nothing():
    x = torch.randn(50, 4)
    assert precision_recall(x, x) == (1, 1)
    assert density_coverage(x, x)[1] == 1
    assert precision_recall(x + 100, x) == (0, 0)
    assert density_coverage(x + 100, x) == (0, 0)


def test_f1():
    assert f1(0, 0) == 0
    assert f1(0.5, 1) == pytest.approx(2 / 3)
    assert f1(0.7, 0.7) == pytest.approx(0.7)


def test_errors():
    x = torch.zeros(5, 2)
    for call in (precision_recall, density_coverage):
        with pytest.raises(ValueError, match=r"k: 5; expected 1 … 4, less than the 5 rows"):
            call(x, x, 5)
        with pytest.raises(ValueError, match=r"expected \(N, D\) and \(M, D\)"):
            call(x, torch.zeros(5, 3), 1)
    density_coverage(x[:1], x, 4)  # generated rows have no balls


class Named:
    def __init__(self, name):
        self.name = name


def fidelity(name, made, reference, held_out, **settings):
    """Figures of features, as if they were taken of images."""
    measure = Fidelity(Named(name), **settings)
    measure.reference, measure.held_out = reference, held_out
    measure.about, measure.entries = {}, {"reference": {"rule": ""}}
    measure.index, measure.features = [torch.arange(len(made))], [made]
    return measure.evaluate()


def test_names_and_sets_of_the_conventions():
    made, reference, held_out = torch.randn(40, 3), torch.randn(30, 3), torch.randn(20, 3) * 2
    found = fidelity("inception", made, reference, held_out)
    kinds = ("precision", "recall", "f1")
    names = {f"{kind}_adm@{n}" for kind in kinds for n in (40, 20)}
    names |= {f"{kind}_adm_ceiling@20" for kind in kinds}
    names |= {f"{kind}_k19_inception@{n}" for kind in kinds for n in (30, 20)}
    names |= {f"{kind}_k19_inception_ceiling@20" for kind in kinds}
    names |= {f"{kind}_inception@{n}" for kind in ("density", "coverage") for n in (30, 20)}
    names |= {f"{kind}_inception_ceiling@20" for kind in ("density", "coverage")}
    assert set(found) == names
    assert found["precision_adm@20"].baseline == found["precision_adm_ceiling@20"].value
    assert found["precision_adm@40"].baseline is None
    assert found["recall_k19_inception@20"].title == "Recall (as Kynkäänniemi et al., Named)"
    found = {name: figure.value for name, figure in found.items()}
    p, r = precision_recall(made, reference)  # all against all: fewer than 10,000
    assert (found["precision_adm@40"], found["recall_adm@40"]) == (p, r)
    assert found["f1_adm@40"] == f1(p, r)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    p, r = precision_recall(made[:20], reference[order[:20]])
    assert found["precision_k19_inception@20"] == p
    assert found["recall_k19_inception@20"] == r
    d, c = density_coverage(made[:30], reference)
    assert found["density_inception@30"] == pytest.approx(d)
    assert found["coverage_inception@30"] == c
    assert found["precision_adm_ceiling@20"] == precision_recall(held_out, reference)[0]


def test_own_names_and_other_k():
    x = torch.randn(20, 3)
    assert "precision_k19@20" in fidelity("vgg16", x, x, x)
    found = fidelity("vgg16", x, x, x[:3], k=4, k_coverage=2)
    assert set(found) == {
        *(f"{kind}_adm_vgg16_k4@20" for kind in ("precision", "recall", "f1")),
        *(f"{kind}_k19_k4@20" for kind in ("precision", "recall", "f1")),
        "density_vgg16_k2@20",
        "coverage_vgg16_k2@20",
    }  # and no ceiling of three images


def test_set_sizes():
    assert sets(50_000, 50_000) == {
        "adm": {"generated": 50_000, "real": 10_000},
        "k19": {"generated": 50_000, "real": 50_000},
    }
    assert sets(1000, 648)["k19"] == {"generated": 648, "real": 648}
