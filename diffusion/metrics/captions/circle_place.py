"""Whether drawn circles are where their outline is, in the colour that their caption names."""

import re

import torch
from torch import Tensor

from diffusion.common.palette import CSS
from diffusion.common.pixels import ground
from diffusion.common.validate import check_shares
from diffusion.metrics.base import Figure, Measure, SampleBatch, in_sample_order
from diffusion.metrics.captions.base import over_others

EXCHANGED = "samples with what they were asked for exchanged"
CAPTION = re.compile(rf"an? ({'|'.join(CSS)}) circle\b")


class CirclePlace(Measure):
    """How far samples of `Circles` are from the circles that were asked for.

    What differs from the median of the outermost pixels by more than `apart` in a channel is the
    circle. circle_place@n is the mean distance in pixels of its centre of mass from that of the
    outline asked for, circle_colour@n the mean RMSE (0 … 255) of its median colour to the one that
    the caption names. Where nothing differs, the picture's middle and its ground count. Beside
    each is what the samples get with outlines and captions exchanged, which is what a model gets
    that does not look at them. Pictures of the data have 0.1 pixels and 0.

    Args:
        control: The name of the outline among the controls.
        apart: A share of 255.

    Raises:
        ValueError: If the share is not in [0, 1).
    """

    higher_is_better = False
    index: list[Tensor]
    rows: list[Tensor]

    def __init__(self, control: str = "outline", apart: float = 0.15) -> None:
        super().__init__()
        check_shares("metrics.CirclePlace", apart=apart)
        self.control, self.apart = control, apart
        for name in ("index", "rows"):
            self.add_state(name, [], "cat")

    def update(self, samples: SampleBatch) -> None:
        """Finds the circles; nothing without outlines, captions or colours."""
        outline = (samples.controls or {}).get(self.control)
        if outline is None or samples.texts is None or samples.images.shape[1] != 3:
            return
        index, place = self.count(samples), centre(outline[:, 0])
        named = (CAPTION.match(text) for text in samples.texts)
        wanted = torch.tensor([CSS[name[1]] if name else (torch.nan,) * 3 for name in named])
        parts = (*circles(samples.images, self.apart), place, wanted)
        rows = torch.cat([part.to(self.device, torch.float32) for part in parts], 1)
        known = rows.isfinite().all(1)
        self.index.append(index[known])
        self.rows.append(rows[known])

    def evaluate(self) -> dict[str, Figure]:
        """Returns distance and RMSE, nothing of fewer than two samples."""
        self.entries = {"circle_place": {"apart": self.apart}}
        rows = in_sample_order(self.index, self.rows)[0] if self.index else torch.empty(0, 10)
        if (n := len(rows)) < 2:
            return {}
        place, colour, its_place, its_colour = rows.double().cpu().split([2, 3, 2, 3], 1)
        figures: dict[str, Figure] = {}
        for key, title, phrase, errors in (
            ("circle_place", "Circle's place", "Pixels from the outline's centre.",
             torch.cdist(place, its_place)),
            ("circle_colour", "Circle's colour", "RMSE (0 … 255) to the colour that is named.",
             torch.cdist(colour, its_colour) / 3**0.5),
        ):  # fmt: skip
            mean = errors.diagonal().mean().item()
            figure = Figure(mean, n, title, phrase, "low", depends=("circle_place",))
            figures[f"{key}@{n}"] = figure
            figures[f"{key}_exchanged@{n}"] = figure.floor(over_others(errors), of=EXCHANGED)
        return figures


def centre(weights: Tensor) -> Tensor:
    """Returns x and y of the centre of mass of (B, H, W), in pixels, (B, 2); the middle if empty.

    The upper left pixel's own centre is at ½.
    """
    mass, (height, width) = weights.double().clamp_min(0), weights.shape[1:]
    mass = torch.where(mass.sum((1, 2), keepdim=True) > 0, mass, torch.ones_like(mass))
    mass = mass / mass.sum((1, 2), keepdim=True)
    x, y = (torch.arange(n, device=mass.device, dtype=mass.dtype) + 0.5 for n in (width, height))
    return torch.stack([mass.sum(1) @ x, mass.sum(2) @ y], 1)


def circles(images: Tensor, apart: float) -> tuple[Tensor, Tensor]:
    """Returns where the circles in images are, (B, 2), and their colours 0 … 255, (B, 3)."""
    x = images.float()
    around = ground(x)[..., None]
    inside = ((x.flatten(2) - around).abs() > 255 * apart).any(1, keepdim=True)
    colour = torch.where(inside, x.flatten(2), torch.nan).nanmedian(2).values
    colour = torch.where(colour.isnan(), around[..., 0], colour)
    return centre(inside.view(len(x), *x.shape[2:])), colour
