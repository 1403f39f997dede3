from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.data import Images, Memory, Versions
from diffusion.data.sets import ImageSet
from diffusion.metrics import Card, NearCopies, SampleBatch, neighbours as module
from diffusion.metrics.neighbours import nearest, neighbours
from diffusion.metrics.real_images import collect, shown
from diffusion.metrics.report.card import find_nearest


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
    assert copied(train[:300], digits) == (1, 0.05)
    assert copied(test, digits) == (0.05, 0.05)
    noise = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    assert copied(noise, digits)[0] == 0
    assert copied(torch.cat([train[:100], noise]), digits)[0] == 0.5
    rows = torch.randperm(len(test))
    halves = made_of(train, test[rows[250:]])
    assert copied(test[rows[:250]], halves)[0] == pytest.approx(0.05, abs=0.05)


def made_of(train, test, **kwargs):
    class Made(Images):
        shape = tuple(test.shape[1:])

        def setup(self, stage):
            self.train_set = train if isinstance(train, ImageSet) else Memory(train)
            self.val_set = self.test_set = Memory(test)

    return Made(**kwargs)


def copied(images, data, batch_size=64, **settings):
    """Shares of near copies, of generated images and of held-out ones."""
    measure = NearCopies(**settings)
    measure.prepare(data, Path())
    for part in images.split(batch_size):
        measure.update(SampleBatch(part))
    share, floor = measure.figures().values()
    assert share.baseline == floor.value
    return share.value, floor.value


def bytes_of(n, *shape):
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8)


def test_copies_are_copies_however_many_duplicates_are_held_out():
    train, new = bytes_of(100, 3, 8, 8), bytes_of(80, 3, 8, 8)
    data = made_of(train, torch.cat([train[:20], new]))  # a fifth
    assert copied(train, data) == (1, 0.24)  # 20 copies, and 5 % of 80
    assert copied(bytes_of(60, 3, 8, 8), data)[0] == pytest.approx(0.05, abs=0.1)
    faint = train.clone()
    faint[:, 0, 0, 0] ^= 1  # one level of one pixel
    assert copied(faint, data)[0] == 1
    assert copied(train, made_of(train, train[:30])) == (1, 1)
    assert copied(faint, made_of(train, train[:30])) == (0, 1)


def test_all_versions_are_looked_at():
    pictures, held_out = bytes_of(60, 1, 6, 6), bytes_of(40, 1, 6, 6)
    groups = [list(range(i, i + 6)) for i in range(0, 60, 6)]
    data = made_of(Versions(Memory(pictures), groups), held_out)
    assert len(collect(data, "train")[0]) == 10  # one of each
    assert sum(map(len, shown(data))) == 60
    assert copied(pictures, data)[0] == 1
    assert nearest(pictures, shown(data)).tolist() == [0] * 60


@pytest.mark.parametrize("flip", [True, False])
def test_mirrored_images_are_copies_where_training_mirrors(flip):
    train, held_out = bytes_of(60, 1, 6, 6), bytes_of(40, 1, 6, 6)
    data = made_of(train, held_out, flip=flip)
    assert sum(map(len, shown(data))) == (120 if flip else 60)
    assert copied(train.flip(-1), data)[0] == pytest.approx(1 if flip else 0.05, abs=0.1)
    assert copied(train, data)[0] == 1
    card = Card(samples=4, neighbours=1)
    found = find_nearest(card, train.flip(-1), data, torch.device("cpu"))
    assert (found.distances == 0).all() == flip
    assert torch.equal(found.images[:, 0], train[:4].flip(-1)) == flip


@pytest.mark.parametrize("chunk", [2**26, 700])
def test_distances_are_exact_at_any_size(chunk, monkeypatch):
    """Against numpy's sums of integers; in float32 one level of 12,288 values is lost."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    y = bytes_of(5, 3, 64, 64)
    x = torch.cat([y, y])
    x[5:, 2, 63, 63] ^= 1
    difference = x[:, None].numpy().astype(np.int64) - y[None].numpy()
    expected = np.sqrt((difference**2).sum((2, 3, 4)).min(1) / 12288) / 127.5
    assert nearest(x, [y]).tolist() == pytest.approx(expected.tolist(), rel=1e-6, abs=0)
    assert nearest(x, [y])[:5].tolist() == [0] * 5 < nearest(x, [y])[5:].tolist()


def test_errors():
    x = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="quantile: 1; expected"):
        NearCopies(quantile=1)
    with pytest.raises(ValueError, match="others has no images"):
        nearest(x, [])
    with pytest.raises(ValueError, match="others has no images"):
        neighbours(x, [], 1)
