# pyright: strict
"""Edges of a picture."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.data.controls.base import Control, luma, reached

TIE = 1e-5  # relative; equal slopes, as on both sides of a step, stay equal on any device


@dataclass(frozen=True)
class Canny(Control):
    """1 on edges, 0 elsewhere: white lines on black (Canny 1986, doi:10.1109/TPAMI.1986.4767851).

    A picture's luma in [0, 1] is smoothed by a Gaussian, cut at 4 σ, whose weights outside the
    picture are left out, and m is the length of Sobel's gradient (weights 1 2 1, undivided). Where
    m ≥ low and m is no smaller than on either side along the gradient, one pixel further in its
    larger component and interpolated in the other, is a line; lines that m ≥ high on one pixel
    connects to, corners included, are edges. The outermost pixels are none.

    Args:
        sigma: σ in pixels.
        low: Least slope of a line.
        high: Least slope that starts one.

    Raises:
        ValueError: If σ is not positive, or the slopes are not 0 < low ≤ high.
    """

    kind = "edges"
    sigma: float = 1.0
    low: float = 0.1
    high: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 100:
            raise ValueError(f"data.controls.sigma: {self.sigma}; expected above 0, at most 100")
        if not 0 < self.low <= self.high:
            raise ValueError(f"data.controls.low: {self.low}; expected 0 < low ≤ high")

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        across, down, slope = gradient(smooth(luma(image.float()), self.sigma))
        line = (slope >= self.low) & is_ridge(across, down, slope)
        line &= F.pad(torch.ones_like(line[:, :, 2:, 2:]), (1, 1, 1, 1))
        return reached(line & (slope >= self.high), line, corners=True).to(image.dtype)


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Returns the mean of a neighbourhood with Gaussian weights, of x (B, 1, H, W)."""
    reach = math.floor(4 * sigma + 0.5)
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (place / sigma) ** 2)
    for shape, padding in (((1, 1, -1, 1), (reach, 0)), ((1, 1, 1, -1), (0, reach))):
        kernel = weights.view(shape)
        total = F.conv2d(torch.ones_like(x[:1]), kernel, padding=padding)
        x = F.conv2d(x, kernel, padding=padding) / total
    return x


def gradient(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns Sobel's slopes of x (B, 1, H, W) to the right and downwards, and their length."""
    difference, weights = x.new_tensor([-1.0, 0, 1]), x.new_tensor([1.0, 2, 1])
    kernels = torch.stack([torch.outer(weights, difference), torch.outer(difference, weights)])
    slopes = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels[:, None])
    return slopes[:, :1], slopes[:, 1:], slopes.square().sum(1, keepdim=True).sqrt()


def is_ridge(across: Tensor, down: Tensor, slope: Tensor) -> Tensor:
    """Whether a slope is no smaller than the two that its gradient points to and from."""
    height, width = slope.shape[2:]
    padded = F.pad(slope, (1, 1, 1, 1))

    def beside(right: int, below: int) -> Tensor:
        return padded[:, :, 1 + below : 1 + below + height, 1 + right : 1 + right + width]

    steep = down.abs() > across.abs()
    falling = across * down >= 0  # from the upper left to the lower right, or back
    more, less = torch.maximum(across.abs(), down.abs()), torch.minimum(across.abs(), down.abs())
    share = less / more.clamp_min(torch.finfo(slope.dtype).tiny)
    ridge = torch.ones_like(steep)
    for sign in (-1, 1):
        straight = torch.where(steep, beside(0, sign), beside(sign, 0))
        rising = torch.where(steep, beside(-sign, sign), beside(sign, -sign))
        corner = torch.where(falling, beside(sign, sign), rising)
        ridge &= straight + (corner - straight) * share <= slope * (1 + TIE)
    return ridge
