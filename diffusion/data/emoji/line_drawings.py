"""Line drawings beside the pictures of one style."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.common.validate import first_few
from diffusion.data.emoji.drawings import Drawings

WHITE = 255
# Of another picture: these were drawn anew between the two packages. At 32 x 32 pixels the colour
# pictures of both differ by 3 to 73 grey levels in the mean, all others by 1.6 at most.
REDRAWN = frozenset(
    "1f4bb 1f4dc 1f517 1f52b 1f5ff 1f62e-200d-1f4a8 1f630 1f635-200d-1f4ab 1f6d7 1f968 1f9a0 1f9e0 "
    "1fa93 1facf 2328".split()
)


def with_lines(
    pictures: Drawings, lines: Drawings, mention: Callable[[str], None]
) -> tuple[Drawings, Tensor]:
    """Returns the pictures that have a line drawing, and these, white on black.

    Their bytes are v = min(255, 510 a), where lines cover the share a of a pixel, so that a line of
    half a pixel is white in some pixel wherever it lies.

    Args:
        pictures: Those of the style.
        lines: Its line drawings, black on white.
        mention: Called with what is left out.

    Returns:
        The pictures, and uint8 (N, 1, size, size).
    """
    place = {entry.code: i for i, entry in enumerate(lines.entries) if entry.code not in REDRAWN}
    kept = [i for i, entry in enumerate(pictures.entries) if entry.code in place]
    left_out = [entry.name for entry in pictures.entries if entry.code not in place]
    if left_out:
        mention(
            f"data.controls: left out {len(left_out)} of {len(pictures.entries)} pictures, which "
            f"have no line drawing: {first_few(left_out)}"
        )
    entries, colours = [pictures.entries[i] for i in kept], [pictures.colours[i] for i in kept]
    covered = WHITE - lines.images[[place[entry.code] for entry in entries], :1].short()
    white = (2 * covered).clamp_max(WHITE).to(torch.uint8)
    return Drawings(pictures.images[kept], entries, colours), white
