# pyright: strict
"""Which of a picture's captions is shown: a draw by the weights of their sources."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from diffusion.common.hashing import share_of
from diffusion.common.validate import first_few
from diffusion.data.captions.base import CaptionSource, Texts


@dataclass(frozen=True)
class Blend:
    """Shows of each picture one of its captions, by chance (Betker et al. 2023, section 3.1).

    At its visit v, picture i shows its first caption j with u < s_1 + … + s_j, where u is uniform
    in [0, 1) and depends on (seed, i, v) alone. A position of training is one visit of one picture,
    so a run that resumes, and any number of processes, draw the same.

    Args:
        bounds: Of each picture, the sums s_1 + … + s_j of its captions' shares, the last of them 1.
        seed: That of the data.
    """

    bounds: Sequence[Sequence[float]]
    seed: int

    def pick(self, picture: int, visit: int) -> int:
        """Returns the number of the caption that is shown."""
        return bisect_right(self.bounds[picture], share_of(f"{self.seed} {picture} {visit}"))


def check_blend(
    weights: Mapping[str, float], known: Sequence[str] | None = None, key: str = "captions"
) -> None:
    """Refuses weights of sources that there are not, or that are no shares of one whole.

    Args:
        weights: By source.
        known: The sources that there are; None if that is not known yet.
        key: What errors call them.

    Raises:
        ValueError: If they are.
    """
    if unknown := [key for key in weights if known is not None and key not in known]:
        raise ValueError(
            f"data.{key}: {unknown[0]}, no captions of this kind; expected some of "
            f"{', '.join(known or ())}, or a key of data.sources"
        )
    total = sum(weights.values())
    if not math.isclose(total, 1, abs_tol=1e-6) or min(weights.values()) < 0:
        raise ValueError(
            f"data.captions: {dict(weights)}; expected weights of 0 or more that sum to 1, they "
            f"sum to {total:g}"
        )


def blended(
    weights: Mapping[str, float],
    own: Mapping[str, Texts],
    sources: Mapping[str, CaptionSource],
    names: Sequence[str],
    mention: Callable[[str], None],
) -> tuple[list[list[str]], list[tuple[float, ...]]]:
    """Returns the captions of each picture of a split, and `Blend.bounds` of them.

    The n captions of a source share its weight evenly. Where a picture lacks a source's captions,
    which is mentioned, the other weights are divided by their sum; where that is 0, all are equal.

    Args:
        weights: Of the sources, by their keys.
        own: The data's own captions, by key.
        sources: Further ones, by key.
        names: Of the pictures.
        mention: Called with what is missing.

    Returns:
        Two lists of N; both are empty for a picture without any caption.
    """
    pending = [*sources]  # so that none is made of itself

    @cache
    def given(key: str) -> Texts:
        if key in pending:
            pending.remove(key)
            return sources[key].captions(names, given)
        if key not in own:
            others = ", ".join([*own, *pending])
            raise ValueError(f"data.sources: made of {key}; expected one of {others}")
        return own[key]

    found = {key: given(key) for key in weights}
    for key, of_all in found.items():
        lacking = [name for name, texts in zip(names, of_all) if not texts]
        if lacking and weights[key]:
            mention(
                f"captions.{key}: {len(lacking)} of {len(names)} pictures have none, and show "
                f"their other ones: {first_few(lacking)}"
            )
    texts, bounds = list[list[str]](), list[tuple[float, ...]]()
    for of_one in zip(*found.values()):
        texts.append([text for part in of_one for text in part])
        shares = [w / len(part) for w, part in zip(weights.values(), of_one) for _ in part]
        total = sum(shares)
        shares = [s / total if total else 1 / len(shares) for s in shares]
        sums = [*accumulate(shares)]
        bounds.append(tuple(s if s < sums[-1] else 1.0 for s in sums))
    return texts, bounds
