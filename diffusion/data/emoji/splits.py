"""Who is in which split: by concept, and by (concept, style) within the training concepts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from diffusion.data.shares import share_of

HELD_OUT = 0.05


def splits(bases: Mapping[str, Sequence[str]]) -> dict[str, list[list[int]]]:
    """Group the pictures of all styles, one after the other, by concept and style, and split them.

    A concept is for validation or testing by its code points alone. A pair of a training concept
    and a style is held out by their names; one style of every concept stays.

    Args:
        bases: For each style, the concept of every picture.

    Returns:
        For each split, its groups: the numbers of the pictures of one concept in one style.
    """
    groups: dict[str, dict[str, list[int]]] = defaultdict(dict)
    number = 0
    for style, concepts in bases.items():
        for concept in concepts:
            groups[concept].setdefault(style, []).append(number)
            number += 1
    found: dict[str, list[list[int]]] = {name: [] for name in ("train", "val", "test", "pairs")}
    for concept, of_style in groups.items():
        share = share_of(concept)
        whole = "val" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"
        pair = {style: share_of(f"{concept} {style}") for style in of_style}
        stays = max(pair, key=lambda style: pair[style])
        for style, group in of_style.items():
            held_out = whole == "train" and pair[style] < HELD_OUT and style != stays
            found["pairs" if held_out else whole].append(group)
    return found
