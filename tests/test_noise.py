import math

import pytest
import torch

from diffusion.noise import SeededNoise, seed


def test_a_samples_noise_does_not_depend_on_its_batch():
    every = SeededNoise(3, range(10))
    x, again = every.draw((2, 3)), every.draw((2, 3))
    assert not torch.equal(x, again)
    for indices in ([7], [7, 2], [0, 1, 7], [9, 8, 7, 6]):
        some = SeededNoise(3, indices)
        assert torch.equal(some.draw((2, 3)), x[indices])
        assert torch.equal(some(torch.empty(len(indices), 2, 3)), again[indices])


def test_pairs_of_seed_and_number_differ():
    pairs = [(run, i) for run in range(40) for i in range(40)]
    pairs += [(2**31 - 1, 0), (2**32, 0), (2**32 + 1, 0), (0, 2**31), (1, 2**31)]
    first = torch.cat([SeededNoise(run, [i]).draw((1,)) for run, i in pairs])
    assert len(first.unique()) == len(pairs)


def test_seeds_of_keys_differ():
    keys = [(5,), (5, 0), (0, 5), (5, 0, 0), (2**32, 0), (0, 1), (0, 1, 0), (1, 0), (0,), (0, 0)]
    assert len({seed(*key) for key in keys}) == len(keys)
    assert seed(1, 2) == seed(1, 2)
    assert all(0 <= seed(*key) < 2**63 for key in keys)


@pytest.mark.parametrize("vary", ["seed", "index", "draw"])
def test_standard_normal(vary):
    n, shape = 2000, (4, 5)
    if vary == "seed":
        x = torch.cat([SeededNoise(run, [5]).draw(shape) for run in range(n)])
    elif vary == "index":
        x = SeededNoise(5, range(n)).draw(shape)
    else:
        noise = SeededNoise(5, [5])
        x = torch.cat([noise.draw(shape) for _ in range(n)])
    x = x.double().reshape(n, -1)
    count = x.numel()
    assert abs(x.mean()) < 4 / math.sqrt(count)
    assert abs(x.square().mean() - 1) < 4 * math.sqrt(2 / count)
    assert abs(x.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
    assert abs((x[1:] * x[:-1]).mean()) < 4 / math.sqrt(count)
    uniform = torch.special.ndtr(x).flatten().sort().values
    distance = (uniform - torch.arange(1, count + 1).double() / count).abs().max()
    assert distance < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov, 1 %


def test_follows_dtype():
    x = SeededNoise(0, [1, 2])(torch.empty(2, 3, dtype=torch.float64))
    assert x.dtype == torch.float64
    torch.testing.assert_close(x.float(), SeededNoise(0, [1, 2]).draw((3,)))
