import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from diffusion.data import Tree


@pytest.fixture(scope="module")
def tree():
    made = Tree(points=20_000, depth=3)
    made.setup("fit")
    return made


def test_the_log_density_is_the_mixtures(tree):
    x, label = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    expected = []
    for point, y in zip(x.numpy(), label.tolist()):
        parts = zip(tree.weights[y], tree.means[y], tree.factors[y])
        expected.append(
            np.log(sum(w * multivariate_normal.pdf(point, m, L @ L.T) for w, m, L in parts))
        )
    torch.testing.assert_close(
        tree.log_density(x, label), torch.tensor(expected), rtol=1e-6, atol=0
    )


def test_points_have_the_mixtures_moments(tree):
    points = tree.train_set.images.double()
    labels = tree.train_set.labels
    assert tree.weights.sum(1).tolist() == pytest.approx([1, 1])
    assert points.mean(0).abs().max() < 4 / 20_000**0.5
    assert points.var(0).mean().item() == pytest.approx(1, abs=0.03)
    for y in (0, 1):
        own = points[labels == y]
        mean = (tree.weights[y, :, None] * tree.means[y]).sum(0)
        assert (own.mean(0) - mean).abs().max() < 5 / len(own) ** 0.5
    score, distance = tree.log_components(points[:5000].float(), labels[:5000])
    near = distance.gather(1, score.argmax(1, keepdim=True))
    assert (near < 3).double().mean() > 0.97


def test_leaves_are_found_by_those_who_belong_to_them(tree):
    y = torch.arange(2)[:, None].expand(tree.leaves.shape)
    assert tree.leaves.sum(1).tolist() == [32, 32]
    assert tree.leaves_hit(tree.means[tree.leaves].float(), y[tree.leaves]) == 1
    first = tree.means[tree.leaves][:16].float()
    assert tree.leaves_hit(first, y[tree.leaves][:16]) == 0.25
    assert tree.leaves_hit(tree.means[~tree.leaves].float(), y[~tree.leaves]) < 0.1
    assert tree.leaves_hit(torch.full((4, 2), 50.0), torch.zeros(4, dtype=torch.long)) == 0


def test_splits_have_points_of_their_own_and_trees_are_always_the_same(tree):
    again = Tree(points=20_000, depth=3, points_seed=1)
    again.setup("fit")
    assert torch.equal(again.means, tree.means)
    assert not torch.equal(again.train_set.images, tree.train_set.images)
    assert not torch.equal(tree.val_set.images, tree.train_set.images)
