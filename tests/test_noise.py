"""The generator against golden vectors, its numbers against high precision and statistics."""

import itertools
import math
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion.condition import Condition
from diffusion.networks import Augmentation, Known
from diffusion.noise import MASK, Purpose, SeededNoise, Use, philox, seed
from diffusion.objective import ImportanceSampled, Simple
from diffusion.process import Linear
from diffusion.systems.noisy_classifier import NoisyClassifier, random_crop

# counter, key and result of `philox4x32 10` in Random123's kat_vectors
GOLDEN = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""
DRAWS = ["seed", "stage", "use", "purpose", "draw", "sample", "element"]


def scalar_philox(counter, key):
    """One block in Python's integers, as the paper writes it (section 3.4)."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        (hi0, lo0), (hi1, lo1) = divmod(0xD2511F53 * c0, 2**32), divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_golden_vectors(kind):
    rows = [[int(word, 16) for word in line.split()] for line in GOLDEN.split("\n")[1:-1]]
    for *counter, k0, k1, a, b, c, d in [(*row[:6], *row[6:]) for row in rows]:
        assert scalar_philox(counter, (k0, k1)) == (a, b, c, d)
        words = [kind([word]) for word in counter]
        assert [int(word[0]) for word in philox(*words, k0, k1)] == [a, b, c, d]


def test_arrays_and_tensors_have_the_same_words_and_broadcast():
    c0, c2, c3 = torch.randint(2**32, (1, 70)), *torch.randint(2**32, (2, 50, 1))
    found = philox(c0, 12345, c2, c3, 2**32 - 1, 7)
    again = philox(c0.numpy(), 12345, c2.numpy(), c3.numpy(), 2**32 - 1, 7)
    for word, other in zip(found, again):
        assert torch.equal(word, torch.from_numpy(other))
    for i, j in [(0, 0), (49, 69), (7, 30)]:
        counter = int(c0[0, j]), 12345, int(c2[i, 0]), int(c3[i, 0])
        assert scalar_philox(counter, (2**32 - 1, 7)) == tuple(int(word[i, j]) for word in found)


def test_fields_of_key_and_counter():
    """Element e of n is word e div b of block e mod b, with b = ⌈n / 4⌉ blocks."""
    run, stage, number = 2**32 - 5, 3, 2**40 + 9
    noise = SeededNoise(run + (stage << 32), [4, number], use=Use.TRAINING).of(Purpose.MASK)
    noise.uniform()
    bits = noise.bits((2, 3))[1].flatten()
    for e, value in enumerate(bits.tolist()):
        counter = e % 2, Purpose.MASK << 24 | 1, number % 2**32, number >> 32
        assert value == scalar_philox(counter, (run, stage | Use.TRAINING << 16))[e // 2]


def test_a_samples_noise_does_not_depend_on_its_batch():
    every = SeededNoise(3, range(10))
    x, again, whole = every.normal((2, 3)), every.normal((2, 3)), every.integers(1000, (5,))
    assert not torch.equal(x, again)
    for indices in ([7], [7, 2], [0, 1, 7], torch.tensor([9, 8, 7, 6])):
        some = SeededNoise(3, indices)
        assert torch.equal(some.normal((2, 3)), x[indices])
        assert torch.equal(some(torch.empty(len(indices), 2, 3)), again[indices])
        assert torch.equal(some.integers(1000, (5,)), whole[indices])
    large = SeededNoise(3, range(40)).normal((3, 50, 50))  # in several parts
    for first, n in ((0, 1), (3, 2), (11, 29)):
        assert torch.equal(
            SeededNoise(3, range(first, first + n)).normal((3, 50, 50)), large[first : first + n]
        )


def test_streams_differ():
    runs = (0, 1, 2**32 - 1, 2**32, 2**33, 2**48 - 1)
    numbers = [0, 1, 2**31, 2**32, 2**32 + 1, 2**33, 2**63 - 1]
    found = []
    for run, use, purpose in itertools.product(runs, Use, Purpose):
        noise = SeededNoise(run, numbers, use=use).of(purpose)
        found += [noise.bits((2,)) for _ in range(3)]
    first, second = torch.cat(found).unbind(1)
    assert len((first + (second << 31)).unique()) == len(first)


def test_seeds_of_keys_differ():
    keys = [(5,), (5, 0), (0, 5), (5, 0, 0), (2**32, 0), (0, 1), (0, 1, 0), (1, 0), (0,), (0, 0)]
    assert len({seed(*key) for key in keys}) == len(keys)
    assert seed(1, 2) == seed(1, 2)
    assert all(0 <= seed(*key) < 2**63 for key in keys)


@pytest.mark.parametrize("run", [-1, 2**48])
def test_a_seed_out_of_range_is_refused(run):
    with pytest.raises(ValueError, match=rf"seed: {run}; expected 0 … 4294967295"):
        SeededNoise(run, [0])


def ulps(a, b):
    """How many floats lie from a to b, both float32."""
    places = [x.view(np.int32).astype(np.int64) for x in (np.asarray(a), np.asarray(b))]
    return np.abs(np.subtract(*(np.where(p < 0, -(2**31) - p, p) for p in places)))


def box_muller(a, b, log, cos, sin, sqrt):
    radius = [sqrt(-2 * log((x + 0.5) / 2**32)) for x in a]
    theta = [float(y) * (2 * math.pi / 2**32) for y in b]
    both = [(r * cos(y), r * sin(y)) for r, y in zip(radius, theta)]
    return np.array([[float(x) for x in pair] for pair in both], dtype=np.float32).T


def test_normal_numbers_are_within_one_unit_of_any_other_computation(monkeypatch):
    """Of exact arithmetic on u and θ, and of another library of functions."""
    extreme = [0, 1, 2, 2**30 - 1, 2**30, 2**30 + 1, 2**31, 3 * 2**30, MASK - 1, MASK]
    pairs = list(itertools.product(extreme, extreme))
    pairs += np.random.default_rng(0).integers(0, 2**32, (2000, 2)).tolist()
    a, b = (torch.tensor(x)[None] for x in zip(*pairs))
    monkeypatch.setattr(SeededNoise, "_words", lambda *_: iter([(slice(None), (a, b, a, b))]))
    found = SeededNoise(0, [0]).normal((4, len(pairs)))[0].numpy()
    assert np.abs(found).max() < 6.8
    mpmath.mp.prec = 200
    exact = (mpmath.log, mpmath.cos, mpmath.sin, mpmath.sqrt)
    for functions in (exact, (math.log, math.cos, math.sin, math.sqrt)):
        other = box_muller(*(x[0].tolist() for x in (a, b)), *functions)
        distance = ulps(found[[0, 2]], other)
        assert distance.max() <= 1
        assert (distance > 0).mean() < 1e-3
    assert np.array_equal(found[:2], found[[0, 1]])


@pytest.mark.parametrize("vary", DRAWS)
def test_standard_normal_and_independent(vary):
    """Moments, Kolmogorov-Smirnov at 1 %, and correlations along whatever changes."""
    n, width = 4000, 20
    if vary == "element":
        x = SeededNoise(5, range(width)).normal((n,)).T
    elif vary == "sample":
        x = SeededNoise(5, range(n)).normal((width,))
    else:
        key = {"seed": 1, "stage": 2**32}.get(vary, 0)
        n = {"use": len(Use), "purpose": 200}.get(vary, 500)
        width = 80_000 // n
        uses = [Use(i % len(Use)) if vary == "use" else Use.SAMPLES for i in range(n)]
        each = [SeededNoise(5 + key * i, [5], use=use) for i, use in enumerate(uses)]
        each = [x.of(i) if vary == "purpose" else x for i, x in enumerate(each)]
        each = each[:1] * n if vary == "draw" else each
        x = torch.cat([noise.normal((width,)) for noise in each])
    x, count = x.double(), n * width
    assert abs(x.mean()) < 4 / math.sqrt(count)
    assert abs(x.square().mean() - 1) < 4 * math.sqrt(2 / count)
    assert abs(x.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
    for y, z in ((x, x.roll(1, 0)), (x, x.roll(1, 1)), (x.square() - 1, x.square().roll(1, 0) - 1)):
        size = math.sqrt(y.square().mean() * z.square().mean())
        assert abs((y * z).mean()) < 4 * size / math.sqrt(count)
    uniform = torch.special.ndtr(x).flatten().sort().values
    distance = (uniform - torch.arange(1, count + 1).double() / count).abs().max()
    assert distance < 1.63 / math.sqrt(count)


def test_uniform_numbers():
    x = SeededNoise(1, range(1000)).uniform((200,))
    assert x.dtype == torch.float32
    assert (x >= 0).all()
    assert (x < 1).all()
    assert torch.equal(x * 2**24, (x * 2**24).round())
    place = x.double().flatten().sort().values - torch.arange(1, x.numel() + 1) / x.numel()
    assert place.abs().max() < 1.63 / math.sqrt(x.numel())


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
def test_integers_are_uniform(n):
    x, count = SeededNoise(2, range(1000)).integers(n, (100,)), 100_000
    found = x.flatten().bincount(minlength=n).double()
    assert len(found) == n
    square = ((found - count / n) ** 2 / (count / n)).sum()
    assert square < n - 1 + 4 * math.sqrt(2 * n)


@pytest.mark.parametrize("n", [2, 3, 10, 1000, 4001, 2**31 - 1])
def test_the_bias_of_integers_is_below_two_to_the_minus_32(n):
    """How many of the 2³² words give k: ⌈2³² (k + 1) / n⌉ − ⌈2³² k / n⌉, by counting."""
    first = [-(-(k << 32) // n) for k in (*range(min(n, 5000)), n - 1, n)]
    assert first[-1] == 2**32
    for k, words in enumerate(np.diff(first[: min(n, 5000)])):
        assert abs(words / 2**32 - 1 / n) < 2**-32
        at = torch.tensor([first[k] - 1, first[k]]).clamp(min=0)
        assert ((at * n) >> 32).tolist() == [max(k - 1, 0), k]


def test_follows_dtype():
    x = SeededNoise(0, [1, 2])(torch.empty(2, 3, dtype=torch.float64))
    assert x.dtype == torch.float64
    assert torch.equal(x.float(), SeededNoise(0, [1, 2]).normal((3,)))


class Stays(TorchDispatchMode):
    """Refuses to wait for a device, and to copy from one to another."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function._overloadpacket.__name__
        tensors = [x for x in (*args, out) if isinstance(x, torch.Tensor)]
        assert name not in ("_local_scalar_dense", "item", "nonzero", "equal"), name
        devices = {x.device for x in tensors if x.ndim or "copy" in name}
        assert len(devices) < 2, name
        return out


def test_that_it_is_seen():
    for move in (
        lambda: torch.ones(3).to("meta"),
        lambda: torch.empty(3, device="meta").copy_(torch.ones(3)),
        lambda: torch.ones(()).item(),
    ):
        with pytest.raises(AssertionError), Stays():
            move()


def test_nothing_is_copied_to_the_device_and_nothing_waits_for_it():
    x_0 = torch.empty(4, 1, 8, 8, device="meta")
    label = torch.zeros(4, dtype=torch.long, device="meta")
    cond, process = Condition({"label": label}, {"label": label[0]}), Linear()
    sampled = ImportanceSampled(Simple())
    process.diffuse(x_0, label, x_0), sampled.probabilities(process.T, "meta")  # copied once
    with Stays():
        noise = SeededNoise(7, range(2**40, 2**40 + 4), "meta", Use.TRAINING)
        drawn = [noise(x_0), noise.integers(5), noise.uniform((3,)), cond.drop(0.3, noise=noise)]
        drawn += [*Simple().draw(process, x_0, noise), random_crop(x_0, 2, noise)]
        drawn += [*sampled.draw(process, x_0, noise)]
        drawn += [*Augmentation(process, 60, 20).train(x_0, noise), Known().masks(8, 8, noise)]
    drawn[3] = drawn[3].values["label"]
    assert all(x.is_meta for x in drawn)


def test_a_step_is_numbered_as_it_is_read():
    """By any number of processes, in any number of parts; networks' dropout differs."""
    module, whole, states = NoisyClassifier(torch.nn.Linear(1, 1), Linear()), {}, set()
    module.seed = 5
    for world, parts, step in itertools.product((1, 2, 3), (1, 2), (0, 7)):
        each = torch.full((12,), -1)
        n = 12 // world // parts
        for rank, part in itertools.product(range(world), range(parts)):
            module._trainer = SimpleNamespace(
                global_rank=rank, world_size=world, global_step=step, accumulate_grad_batches=parts
            )
            batch_idx = 5 * parts + part
            drawn = module.step_noise(batch_idx, n).integers(2**31)
            each[part * n * world + rank :: world][:n] = drawn
            states.add((rank, part, step, torch.initial_seed()))
        assert torch.equal(whole.setdefault(step, each), each)
    assert not torch.equal(whole[0], whole[7])
    assert len(states) == len({state[-1] for state in states})


def test_evaluation_draws_the_same_whatever_the_seed():
    module = NoisyClassifier(torch.nn.Linear(1, 1), Linear())
    module._trainer = SimpleNamespace(global_rank=1, world_size=2)
    first = module.fixed_noise(3, 4).integers(1000)
    module.seed = 9
    assert torch.equal(module.fixed_noise(3, 4).integers(1000), first)
    module._trainer = SimpleNamespace(global_rank=0, world_size=1)
    assert torch.equal(module.fixed_noise(7, 4).integers(1000), first)
    assert not torch.equal(module.fixed_noise(6, 4).integers(1000), first)
