"""Which intervals of guidance are tried, and which of them is chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.cli.choosing.jackknife import error

Interval = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Tried:
    """What samples are worth that were guided in an interval.

    Attributes:
        interval: The times (first, last), ends included.
        distance: Their distance from real images.
        without: The same without each block of them, see `Jackknife`.
        nfe: Evaluations of the network for a sample.
        obeys: The share that shows what was asked for; None where nothing measures it.
        n: The number of samples.
    """

    interval: Interval
    distance: float
    without: Tensor
    nfe: float
    obeys: float | None
    n: int


def cut(times: Tensor, T: int, pieces: int) -> list[Interval]:
    """Returns intervals that are neighbours, with equally many of a sampler's steps each.

    Args:
        times: Those visited, decreasing, 0 the last.
        T: That of the process.
        pieces: How many intervals.

    Returns:
        The first times and last times of each, from noise to data; the outer ends are T and 1.

    Raises:
        ValueError: If there are fewer than two pieces, or more than steps.
    """
    steps = len(times) - 1
    if not 2 <= pieces <= steps:
        raise ValueError(f"pieces: {pieces}; expected 2 … {steps}, the sampler's steps")
    found = [(int(x[-1]), int(x[0])) for x in times[:-1].tensor_split(pieces)]
    found[0], found[-1] = (found[0][0], T), (1, found[-1][1])
    return found


def search(
    pieces: Sequence[Interval], measure: Callable[[Interval], Tried], least: float | None = None
) -> list[Tried]:
    """Tries bounds in turn: the noisy end with all below it guided, then the other one.

    These are the two sweeps of Kynkäänniemi et al. 2024 (section 4), with p pieces 2p − 1 intervals
    or fewer instead of the p(p + 1)/2 that there are; one that is good only with both ends moved
    is missed.

    Args:
        pieces: See `cut`.
        measure: Draws and measures with an interval.
        least: As for `chosen`.

    Returns:
        What was measured, the whole first.
    """
    end = pieces[-1][0]
    tried = [measure((end, last)) for _, last in pieces]
    last = chosen(tried, least).interval[1]
    return tried + [measure((first, last)) for first, top in pieces[:-1] if top <= last]


def chosen(tried: Sequence[Tried], least: float | None = None) -> Tried:
    """Returns the cheapest of those that are as good as the best, as far as the samples can tell.

    Left out is what obeys less than `least`. Of the rest, one is as good as the best if its
    distance is larger by at most the standard error of the difference, of the same noise
    (`error`): the rule of one standard error (Breiman et al. 1984). As the whole is among them,
    nothing is chosen that is measurably worse.

    Args:
        tried: The whole first.
        least: The least share that obeys; by default that of the whole less its standard error,
            √(p(1 − p)/n) with p = (hits + 1)/(n + 2). If none reaches it, the most obedient ones
            are left.
    """
    obeys, n = tried[0].obeys, tried[0].n
    if obeys is not None and least is None:
        p = (obeys * n + 1) / (n + 2)
        least = obeys - (p * (1 - p) / n) ** 0.5
    shares = [1.0 if x.obeys is None else x.obeys for x in tried]
    least = min(least or 0.0, max(shares))
    fit = [x for x, share in zip(tried, shares) if share >= least]
    best = min(fit, key=lambda x: x.distance)
    near = [x for x in fit if x.distance - best.distance <= error(x.without, best.without)]
    return min(near, key=lambda x: (x.nfe, x.distance))
