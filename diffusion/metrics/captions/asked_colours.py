"""Whether images have the colours that their captions name, without any network."""

import numpy as np
import torch
from torch import Tensor

from diffusion.common.palette import NAMES, lab, named_colours, nearest_names
from diffusion.metrics.base import Figure, SampleBatch
from diffusion.metrics.captions.base import EXCHANGED, CaptionMeasure, beside_real, over_others

SHARE = 0.1  # of what is not background
APART = 10.0  # in CIELAB: what is nearer to the border's colour is background


class AskedColours(CaptionMeasure):
    """The share of the colours that captions name which are among their image's own.

    A caption asks for the colours whose names are words of it: black, gray (grey), white, red,
    orange, yellow, green, light blue, blue, purple, pink, brown, beige. An image has those that
    fill at least 10 % of it without its background, each pixel counting as the nearest example of
    `palette.NAMES` in CIELAB. Background is what is within ΔE = 10 (CIE 1976) of the median of the
    outermost pixels; where all is, nothing is. A caption's share is that of its colours which its
    image has; asked_colours@n is the mean over the n samples whose captions ask for any. The
    ceiling is that of real images of the captions, the floor the mean over all other captions.
    Images of one channel are not measured.
    """

    def look(self, samples: SampleBatch) -> Tensor:
        """Returns which colours each image has, bool (B, 13)."""
        images = samples.images.cpu()
        if images.shape[1] != 3:
            return torch.zeros(len(images), len(NAMES), dtype=torch.bool, device=self.device)
        found = [own_colours(image) for image in images.permute(0, 2, 3, 1).numpy()]
        return torch.from_numpy(np.stack(found)).to(self.device)

    def evaluate(self) -> dict[str, Figure]:
        """Returns the share at n, nothing where fewer than two captions ask for a colour."""
        self.entries, self.warnings = {"asked_colours": None}, []
        if not int(self.seen):
            return {}
        asked = self.asked()
        wanted = torch.tensor([asked_colours(text) for text in asked.texts])
        rows = wanted.any(1)
        n, wanted = int(rows.sum()), wanted[rows].double()
        if n < 2 or not asked.seen.any():
            return {}

        def shares(seen: Tensor) -> Tensor:
            return seen[rows].double() @ wanted.T / wanted.sum(1)

        def figure(seen: Tensor) -> dict[str, Figure]:
            value = shares(seen).diagonal().mean().item()
            about = ("Colours asked for", "Share of a caption's colours that its image has.")
            return {
                f"asked_colours@{n}": Figure(value, n, *about, "high", True, ("asked_colours",))
            }

        real = {} if asked.real is None else figure(asked.real)
        found, doubt = beside_real(figure(asked.seen), real)
        self.entries = {"asked_colours": {"captions": asked.fingerprint, "share": SHARE}}
        floor = over_others(shares(asked.seen))
        found[f"asked_colours_floor@{n}"] = found[f"asked_colours@{n}"].floor(floor, of=EXCHANGED)
        self.warn(doubt)
        return found


def asked_colours(text: str) -> list[bool]:
    """Returns which of `palette.NAMES` a text names; "light blue" is not also "blue"."""
    names = named_colours(text)
    return [name in names for name in NAMES]


def own_colours(rgb: np.ndarray) -> np.ndarray:
    """Returns which colours an image has, bool (13,); see `AskedColours`.

    Args:
        rgb: uint8 (H, W, 3).
    """
    border = np.concatenate([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]])
    ground = np.median(border, 0).round().astype(np.uint8)[None]
    pixels = rgb.reshape(-1, 3)
    shown = np.linalg.norm(lab(pixels) - lab(ground), axis=1) > APART
    names = nearest_names(pixels[shown] if shown.any() else pixels)
    return np.bincount(names, minlength=len(NAMES)) >= SHARE * len(names)
