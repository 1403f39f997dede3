"""Whether what a figure was measured with sees anything, and has seen enough."""

from collections.abc import Sequence

import torch

from diffusion.metrics.features.base import Record

LEVEL = 0.01  # a classifier that guesses passes for a better one with at most this probability
ENOUGH = 2  # images for each dimension of the features


def tail(hits: int, n: int, p: float) -> float:
    """Returns P(X ≥ hits) of X ~ Binomial(n, p).

    Args:
        hits: 0 … n.
        n: Number of trials.
        p: Probability of each, 0 … 1.
    """
    if hits <= 0 or not 0 < p < 1:
        return float(hits <= 0 or p >= 1)
    binomial = torch.distributions.Binomial(n, torch.tensor(p, dtype=torch.float64))
    log = binomial.log_prob(torch.arange(hits, n + 1, dtype=torch.float64))
    return log.exp().sum().clamp(max=1).item()


def at_chance(who: str, accuracy: float | None, n: int, chance: float) -> str | None:
    """Returns a warning if an accuracy may be that of a guess, None if it is surely better.

    Surely: a guess that is right with probability `chance` has so many hits with a probability of
    at most 1 % (a binomial test).

    Args:
        who: Who was tested.
        accuracy: The share of n images it was right on, or None if it was not tested.
        n: Number of images.
        chance: What a guess gets.
    """
    if accuracy is None or tail(round(accuracy * n), n, chance) <= LEVEL:
        return None
    return (
        f"{who} is right on {accuracy:.1%} of {n} real images, a guess on {chance:.1%}: "
        "it may be guessing, and figures that depend on it say nothing then"
    )


def tested(who: str, accuracy: float, counts: Sequence[int]) -> Record:
    """Returns what a record says of a classifier's test.

    That is the number of images, "held_out"; the "chance", which is the share of the commonest
    class, the best that a constant guess gets; and, if one is due, a "warning".
    """
    n, chance = sum(counts), max(counts) / sum(counts)
    warning = at_chance(who, accuracy, n, chance)
    return {"held_out": n, "chance": chance} | ({"warning": warning} if warning else {})


def too_few(what: str, n: int, dimensions: int) -> str | None:
    """Returns a warning if a covariance of so many images is a poor one, None if it is not.

    Of n ≤ D images it is singular. Of n = 2D the eigenvalues of a unit covariance are estimated as
    0.09 … 2.9, (1 ± √(D/n))² (Marchenko & Pastur 1967); from there on none is much too small.

    Args:
        what: Whose number it is.
        n: Number of images.
        dimensions: D of the features.
    """
    if n >= ENOUGH * dimensions:
        return None
    singular = "singular" if n <= dimensions else "badly estimated"
    return (
        f"{what}: {n} images for features of {dimensions} dimensions: the covariance is "
        f"{singular}, and the Fréchet distance too large by about c/n: compare it at equal n only; "
        "the kernel distance is unbiased"
    )
