# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Random numbers by counting: sample i gets the same in any batch and on any device.

Philox4x32-10 turns a key and a counter into four words of 32 bits, without any state. Their fields
keep everything apart that a run draws, as no two numbers have all of them in common:

    key      64 bits: the run's seed (32), the stage of a cascade (16), the use (16)
    counter  128 bits: the block of a draw (32), the draw (24), its purpose (8), the sample (64)

Samples that are drawn have numbers of their own. Those of a training step and of an evaluation's
batch are numbered from step · 2³² and from batch · 2³² on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Words = TypeVar("Words", Tensor, np.ndarray)

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
MASK = 2**32 - 1
CHUNK = 2**14  # blocks at once on the CPU, as many as its caches hold


class Use(IntEnum):
    """What numbers are drawn for."""

    SAMPLES = 0
    TRAINING = 1
    EVALUATION = 2
    LIKELIHOOD = 3


class Purpose(IntEnum):
    """What a sample's numbers decide: times and noise, or what it is told."""

    NOISE = 0
    FORGETTING = 1
    LEVEL = 2
    MASK = 3
    CROP = 4
    BLUR = 5


def seed(*key: int) -> int:
    """Returns a 63-bit seed that depends on all the numbers, none of them negative."""
    # A spawn key keeps (5,), (5, 0) and (5, 0, 0) apart, which plain entropy pads to the same.
    sequence = np.random.SeedSequence(key[0], spawn_key=key[1:])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def philox(
    c0: Words, c1: int | Words, c2: Words, c3: Words, k0: int, k1: int
) -> tuple[Words, Words, Words, Words]:
    """Returns Philox4x32-10 of counters and a key (Salmon et al. 2011, "Parallel random numbers").

    A round is c ← (hi(m₁ c₂) ⊕ c₁ ⊕ k₀, lo(m₁ c₂), hi(m₀ c₀) ⊕ c₃ ⊕ k₁, lo(m₀ c₀)) with the upper
    and the lower 32 bits of the products, and then k ← k + w.

    Args:
        c0: The first word of each counter, int64 in 0 … 2³² − 1; all four broadcast.
        c1: The second.
        c2: The third.
        c3: The fourth.
        k0: The first word of the key.
        k1: The second.
    """

    def constant(value: int) -> Any:  # with an array of its own, NumPy starts in half the time
        return np.asarray(value, np.int64) if isinstance(c0, np.ndarray) else value

    m0, m1, mask, half = map(constant, (*MULTIPLIERS, MASK, 32))
    word0, word1, word2, word3 = c0, c1, c2, c3
    for _ in range(ROUNDS):
        product0, product1 = word0 * m0, word2 * m1
        word0, word2 = (product1 >> half) ^ word1, (product0 >> half) ^ word3
        word0 ^= constant(k0)
        word2 ^= constant(k1)
        word0 &= mask
        word2 &= mask
        word1, word3 = product1, product0  # whose upper halves the next mask takes away
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return word0, word1 & mask, word2, word3 & mask


class SeededNoise:
    """Random numbers of samples, by (seed, number of the sample) and what they are for.

    Every call draws new ones; the same calls draw the same again, in any batch, on any number of
    processes. Integers are the same on any device. Normal numbers are computed from them in float64
    and rounded to float32, so two devices differ where a value lies between two floats but for
    their last bits in float64: seldom, and by one unit in the last place.

    Nothing is copied to the device but numbers that are no range, once.

    Args:
        run: The seed of the whole run, 0 … 2³² − 1, plus 2³² times the stage of a cascade.
        numbers: The number i of each sample of the batch, 0 … 2⁶³ − 1.
        device: Where the numbers are drawn. Where there is no float64, they are drawn on the CPU.
        use: What for.

    Raises:
        ValueError: If the seed is out of its range.
    """

    def __init__(
        self,
        run: int,
        numbers: Sequence[int] | Tensor,
        device: torch.device | str = "cpu",
        use: Use = Use.SAMPLES,
    ) -> None:
        if not 0 <= run < 2**48:
            raise ValueError(f"seed: {run}; expected 0 … {2**32 - 1}")
        self.key = run & MASK, run >> 32 | use << 16
        self.device, self.purpose, self.draws = torch.device(device), 0, 0
        self.place = torch.device("cpu") if self.device.type == "mps" else self.device
        if isinstance(numbers, range):
            ends = numbers.start, numbers.stop, numbers.step
            self.numbers = torch.arange(*ends, device=self.place)
        else:
            self.numbers = torch.as_tensor(numbers, dtype=torch.int64, device=self.place)

    def __len__(self) -> int:
        return len(self.numbers)

    def of(self, purpose: int) -> "SeededNoise":
        """Returns the noise of the same samples for another purpose, 0 … 255, from its start."""
        other = copy(self)
        other.purpose, other.draws = purpose, 0
        return other

    def _words(self, blocks: int) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
        """Yields rows of samples and their four words of each block, (rows, blocks)."""
        second, on_cpu = self.purpose << 24 | self.draws, self.place.type == "cpu"
        self.draws += 1
        block = torch.arange(blocks, device=self.place)[None]
        rows = max(1, (CHUNK if on_cpu else 256 * CHUNK) // max(1, blocks))
        for start in range(0, len(self), rows):
            here = slice(start, start + rows)
            number = self.numbers[here, None]
            low, high = number & MASK, number >> 32
            if on_cpu:  # where NumPy's operations start sooner and take half the time
                words = philox(block.numpy(), second, low.numpy(), high.numpy(), *self.key)
                yield here, tuple(map(torch.from_numpy, words))
            else:
                yield here, philox(block, second, low, high, *self.key)

    def _shaped(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Returns the first numbers of (B, 4, blocks) as (B, *shape), where they are wanted."""
        return x.flatten(1)[:, : math.prod(shape)].reshape(len(self), *shape).to(self.device)

    def bits(self, shape: Sequence[int] = ()) -> Tensor:
        """Returns integers, uniform in 0 … 2³² − 1, int64 (B, *shape)."""
        blocks = -(-math.prod(shape) // 4)
        out = torch.empty(len(self), 4, blocks, dtype=torch.int64, device=self.place)
        for rows, words in self._words(blocks):
            for i, word in enumerate(words):
                out[rows, i] = word
        return self._shaped(out, shape)

    def integers(self, n: int, shape: Sequence[int] = ()) -> Tensor:
        """Returns integers ⌊n · bits / 2³²⌋, int64 (B, *shape), uniform in 0 … n − 1.

        The probability of each differs from 1 / n by less than 2⁻³².

        Args:
            n: How many, 1 … 2³¹.
            shape: Of one sample's.
        """
        return (self.bits(shape) * n) >> 32

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Returns multiples of 2⁻²⁴, uniform in [0, 1), float32 (B, *shape)."""
        return (self.bits(shape) >> 8).float() * 2.0**-24

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Returns standard normal noise, float32 (B, *shape), of at most 6.8 either way.

        Of words a, b it is √(−2 log u) (cos θ, sin θ) with u = (a + ½) / 2³² and θ = 2π b / 2³²
        (Box & Muller 1958).
        """
        blocks = -(-math.prod(shape) // 4)
        out = torch.empty(len(self), 4, blocks, device=self.place)
        for rows, (a, b, c, d) in self._words(blocks):
            u = torch.stack((a, c), 1).double().add_(0.5).mul_(2.0**-32)
            theta = torch.stack((b, d), 1).double().mul_(2 * math.pi / 2**32)
            r = u.log_().mul_(-2).sqrt_()
            torch.mul(r, theta.cos(), out=out[rows, :2])
            torch.mul(r, theta.sin_(), out=out[rows, 2:])
        return self._shaped(out, shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns standard normal noise of x's shape, dtype and device; x has one row a sample."""
        return self.normal(x.shape[1:]).to(x)


def noise_of(batch: Mapping[str, Any], x: Tensor) -> SeededNoise:
    """Returns the noise of a batch's samples, "noise"; by default that of samples 0 … B − 1.

    Args:
        batch: Whose noise.
        x: (B, ...), on the device that is right where there is none.
    """
    found = batch.get("noise")
    return SeededNoise(0, range(len(x)), x.device) if found is None else found
