"""What a processor, or several, make of what scaling_counts.py counts: seconds of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

from cost import Op
from scaling_counts import Counted


@dataclass(frozen=True)
class Chip:
    """A processor, and what is assumed of it.

    An operator takes the longest of FLOPs / (share · flops), bytes / (reach · bandwidth), and
    launch; a pass takes the sum of them, or host for each operator if that is more.
    """

    flops: float
    bandwidth: float
    memory: float = 80e9
    share: float = 0.35  # this and the next fitted to ADM's passes, docs/scaling.md
    reach: float = 0.4
    launch: float = 5e-6  # assumed
    host: float = 4.5e-5  # fitted to DDPM's and GLIDE's passes

    def seconds(self, ops: Sequence[Op], host: bool = True) -> float:
        """Returns how long operators take."""
        rates = self.share * self.flops, self.reach * self.bandwidth
        device = sum(max(op.flops / rates[0], op.bytes / rates[1], self.launch) for op in ops)
        return max(device, host * self.host * len(ops))


H100 = Chip(flops=989.4e12, bandwidth=3.35e12)  # SXM, bf16 without sparsity, HBM3
NVLINK, NETWORK, ETHERNET = 450e9, 8 * 50e9, 12.5e9  # bytes/s one way: of a card, of a node, a node
LATENCY, BUCKET, FITS = 5e-6, 25e6, 0.9  # of a hop, assumed; of DDP; of the memory, assumed
LINE, COPY = 0.8, 0.8  # share of a network's and, in an update, of the memory's rate, assumed


def reduce_seconds(size: float, cards: int, node: float = NETWORK) -> float:
    """Returns how long a ring takes to add up `size` bytes of each card."""
    rate = LINE * (min(NVLINK, node) if cards > 8 else NVLINK)
    return 0.0 if cards == 1 else 2 * (cards - 1) * (size / cards / rate + LATENCY)


@dataclass(frozen=True)
class Rate:
    """A prediction: seconds of a step, and how it is divided."""

    seconds: float
    part: int
    again: bool


def rate(counted: Counted, each: int, cards: int = 1, node: float = NETWORK) -> Rate | None:
    """Returns the fastest way that fits into the memory, None if none does.

    Args:
        counted: The model.
        each: Pictures of a step on each card.
        cards: How many.
        node: Bytes a second that leave a node of 8.
    """
    ways = list[Rate]()
    update = 40 * counted.parameters / (COPY * H100.bandwidth)  # Adam 28 bytes, average 12
    bucket = reduce_seconds(min(BUCKET, 4 * counted.parameters), cards, node)
    whole = reduce_seconds(4 * counted.parameters, cards, node)
    for again in (False, True):
        parts = [n for n in (2**i for i in range(12)) if n <= each and each % n == 0]
        fits = [n for n in parts if counted.needs(n, True, again) <= FITS * H100.memory]
        if fits:
            part = fits[-1]
            ahead, back = (
                H100.seconds(counted.ops(part, True, again, late)) for late in (False, True)
            )
            alone = (each // part - 1) * (ahead + back)
            last = ahead + max(back, whole - bucket) + bucket
            ways.append(Rate(alone + last + update, part, again))
    return min(ways, key=lambda way: way.seconds, default=None)
