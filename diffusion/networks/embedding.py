"""What a network is told of the time and the label, as one vector."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.conditioning.label import Label
from diffusion.networks.unet.style import Family, Style


def sinusoidal(t: Tensor, dim: int, family: Family = "ddpm") -> Tensor:
    """Embeds t by the sines and cosines of ωᵢt, i = 0 … h − 1, h = dim/2.

    "ddpm" is [sin(ω₀t) …, cos(ω₀t) …] with ωᵢ = 10000^(−i/(h−1)), so that the last ω is 10⁻⁴;
    "openai" is [cos(ω₀t) …, sin(ω₀t) …] with ωᵢ = 10000^(−i/h).

    Args:
        t: Times (B,), of any real dtype.
        dim: Size of the embedding, even and at least 4.
        family: Whose variant.

    Returns:
        float32 values (B, dim) in [−1, 1].

    References:
        Two readings of Vaswani et al. 2017, section 3.5: that of DDPM's code, and that of Improved
        DDPM's and ADM's.
    """
    half = dim // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    last = half - 1 if family == "ddpm" else half
    angles = t.float()[:, None] * torch.exp(-math.log(10000) / last * i)
    waves = [angles.sin(), angles.cos()]
    return torch.cat(waves if family == "ddpm" else waves[::-1], dim=1)


class TimeLabelEmbedding(nn.Module):
    """emb = W₂ SiLU(W₁ sinusoidal(c (t − 1))) + label row (ADM, Dhariwal & Nichol 2021).

    Args:
        dim: Size of the sinusoidal embedding, even and at least 4.
        width: Size E of the result.
        num_classes: K classes; None for a network without labels.
        null_class: Whether there is a row K for ∅, which is trained like the others.
        time_scale: c.
        family: Whose sinusoids and initial weights.

    Raises:
        ValueError: If `num_classes` is below 1, or a label comes without classes or is missing
            where there is no ∅.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        num_classes: int | None = None,
        null_class: bool = True,
        time_scale: float = 1.0,
        family: Family = "ddpm",
    ) -> None:
        super().__init__()
        self.dim, self.time_scale = dim, time_scale
        self.family: Family = family
        style = Style(width, family=family)
        self.time_in = style.start(nn.Linear(dim, width))
        self.time_out = style.start(nn.Linear(width, width))
        self.label = None if num_classes is None else Label(num_classes, width, null_class)

    @property
    def conditioners(self) -> tuple[Label, ...]:
        """The label's, if there are classes."""
        return () if self.label is None else (self.label,)

    def forward(self, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns emb (B, E) of times t (B,) in 1 … T and labels (B,) in 0 … K, None for ∅."""
        # Published networks count time from 0.
        emb = sinusoidal(self.time_scale * (t - 1), self.dim, self.family)
        emb = self.time_out(F.silu(self.time_in(emb.to(self.time_in.weight.dtype))))
        if self.label is None:
            if label is not None:
                raise ValueError("label: given; expected none, as the network has no num_classes")
            return emb
        return emb + self.label(label)
