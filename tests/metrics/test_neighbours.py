import pytest
import torch

from diffusion.metrics import near_copies, nearest
from diffusion.metrics.neighbours import neighbours
from diffusion.metrics.split import collect, pick


def train_of(data):
    return (batch["image"] for batch in pick(data, "train"))


def test_nearest_by_hand():
    others = torch.tensor([0, 100, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    images = torch.tensor([0, 90, 200], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    expected = torch.tensor([0.0, 10, 55]) / 127.5
    for batch_size in (1, 2, 3):
        distances = nearest(images, others.split(batch_size))
        torch.testing.assert_close(distances, expected, atol=1e-4, rtol=1e-4)


def test_nearest_is_brute_force():
    x = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    y = torch.randint(0, 256, (70, 3, 8, 8), dtype=torch.uint8)
    difference = (x[:, None].double() - y[None].double()) / 127.5
    expected = difference.square().mean((2, 3, 4)).sqrt().amin(1)
    torch.testing.assert_close(nearest(x, y.split(9)).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [3, 70])
def test_neighbours_are_brute_force(batch_size):
    x = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8)
    y = torch.randint(0, 256, (70, 3, 4, 4), dtype=torch.uint8)
    every = ((x[:, None].double() - y[None].double()) / 127.5).square().mean((2, 3, 4)).sqrt()
    expected, order = every.sort(1)
    distances, images = neighbours(x, y.split(batch_size), 5)
    torch.testing.assert_close(distances.double(), expected[:, :5], atol=1e-5, rtol=1e-5)
    assert torch.equal(images, y[order[:, :5]])
    torch.testing.assert_close(distances[:, 0], nearest(x, [y]))
    assert neighbours(x, [y[:2]], 5)[1].shape == (6, 2, 3, 4, 4)


def test_training_images_are_copies_and_held_out_ones_are_not(digits):
    train, _ = collect(digits, "train")
    test, _ = collect(digits, "test")
    assert near_copies(train[:300], test, train_of(digits)) == 1
    assert near_copies(test, test, train_of(digits)) == pytest.approx(0.05, abs=0.01)
    rows = torch.randperm(len(test))
    first, second = test[rows[:250]], test[rows[250:]]
    assert near_copies(first, second, train_of(digits)) == pytest.approx(0.05, abs=0.05)
    noise = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    assert near_copies(noise, test, train_of(digits)) == 0


def test_half_copies(digits):
    train, _ = collect(digits, "train")
    test, _ = collect(digits, "test")
    noise = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    assert near_copies(torch.cat([train[:100], noise]), test, train_of(digits)) == 0.5


def test_errors():
    x = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="quantile: 1, expected"):
        near_copies(x, x, [x], quantile=1)
    with pytest.raises(ValueError, match="others has no images"):
        nearest(x, [])
    with pytest.raises(ValueError, match="others has no images"):
        neighbours(x, [], 1)
    with pytest.raises(ValueError, match="no held-out"):
        near_copies(x, x[:0], [x])
