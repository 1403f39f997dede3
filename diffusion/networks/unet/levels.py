"""The levels of a UNet: the width, the residual blocks and the attention of each."""

from collections.abc import Sequence

from diffusion.common.validate import check_counts


def level_widths(channels: int, multipliers: Sequence[int | float]) -> list[int]:
    """Returns the channels of each level.

    Raises:
        ValueError: If `channels` is odd or below 4, or a level has no whole number of channels.
    """
    if channels < 4 or channels % 2:
        raise ValueError(f"network.channels: {channels}; expected an even number of at least 4")
    if not multipliers or min(multipliers) <= 0:
        raise ValueError(f"network.multipliers: {multipliers}; expected at least one, all above 0")
    widths = [channels * multiplier for multiplier in multipliers]
    if any(width != int(width) for width in widths):
        raise ValueError(
            f"network.multipliers: {multipliers}; expected whole multiples of 1 / {channels}"
        )
    return [int(width) for width in widths]


def level_blocks(blocks: int | Sequence[int], levels: int) -> list[int]:
    """Returns the residual blocks of each level: as many in all, or what a sequence says.

    Raises:
        ValueError: If one is below 1, or the sequence has another length.
    """
    each = [blocks] * levels if isinstance(blocks, int) else list(blocks)
    if len(each) != levels:
        raise ValueError(f"network.blocks: {each}; expected a number for each of {levels} levels")
    for number in each:
        check_counts("network", blocks=number)
    return each


def attended(image_size: int, first: int, levels: int, attention: Sequence[int]) -> list[bool]:
    """Returns for each level whether its resolution, image_size / first / 2^level, is attended.

    Args:
        image_size: Height and width of the images.
        first: How many times smaller the first level is than they are.
        levels: Number of levels.
        attention: The resolutions.

    Raises:
        ValueError: If the image does not divide into first · 2^(levels − 1), or a value of
            `attention` is the resolution of no level.
    """
    unit = first * 2 ** (levels - 1)
    if image_size < unit or image_size % unit:
        raise ValueError(
            f"network.image_size: {image_size}; expected a multiple of {first}·2^(levels−1) = "
            f"{unit}"
        )
    sizes = [image_size // first // 2**level for level in range(levels)]
    if unknown := [size for size in attention if size not in sizes]:
        raise ValueError(f"network.attention: {unknown}; expected resolutions among {sizes}")
    return [size in attention for size in sizes]
