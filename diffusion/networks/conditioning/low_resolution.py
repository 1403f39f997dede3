"""A small picture as condition, and noise on it (Ho et al. 2021, CDM, 4.2; Imagen, 2.4)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.pixels import rounded, scaled
from diffusion.networks.conditioning.base import Conditioner
from diffusion.networks.embedding import sinusoidal
from diffusion.noise import Purpose, SeededNoise, noise_of
from diffusion.process import Process
from diffusion.spec import Batch


class Augmentation:
    """z = α_s x_low + σ_s ε: an upsampler learns not to trust every detail of what it is given.

    In training s is uniform in 0 … `most`, drawn for each sample; when sampling it is `level`. The
    upsampler is told s, so that one network serves all levels.

    Args:
        process: Of the augmentation; its times are the levels s, and s = 0 adds nothing.
        most: The noisiest level of training, 0 … T.
        level: The level at which small images are given to the network when it samples, 0 … most.

    Raises:
        ValueError: If a level is out of its range.
    """

    def __init__(self, process: Process, most: int, level: int) -> None:
        if not 0 <= most <= process.T:
            raise ValueError(f"augmentation.most: {most}; expected 0 … T = {process.T}")
        if not 0 <= level <= most:
            raise ValueError(f"augmentation.level: {level}; expected 0 … most = {most}")
        self.process, self.most, self.level = process, most, level

    def train(self, x_low: Tensor, noise: SeededNoise) -> tuple[Tensor, Tensor]:
        """Returns z of images x_low (B, C, h, w) in [−1, 1] at random levels s, and s (B,)."""
        s = noise.integers(self.most + 1).to(x_low.device)
        return self.process.diffuse(x_low, s, noise(x_low)), s

    def sample(self, x_low: Tensor, noise: SeededNoise) -> tuple[Tensor, Tensor]:
        """Returns z of images x_low (B, C, h, w) in [−1, 1] at `level`, and s (B,)."""
        s = torch.full(x_low.shape[:1], self.level, device=x_low.device)
        return self.process.diffuse(x_low, s, noise(x_low)), s


class Blur:
    """A 3 × 3 Gaussian on some of the small images of training (DALL-E 2, 2.1, after SR3).

    So the network learns to put right what the stage before leaves soft. None when it samples.

    Args:
        sigma: σ of the Gaussian in small pixels. The paper has no figure; lucidrains has 0.6.
        p: The share of the images that are blurred.

    Raises:
        ValueError: If σ is not above 0, or p lies outside 0 … 1.
    """

    def __init__(self, sigma: float = 0.6, p: float = 0.5) -> None:
        if not sigma > 0:
            raise ValueError(f"blur.sigma: {sigma}; expected above 0")
        if not 0 <= p <= 1:
            raise ValueError(f"blur.p: {p}; expected 0 … 1")
        self.sigma, self.p = sigma, p

    def train(self, x_low: Tensor, noise: SeededNoise) -> Tensor:
        """Returns images (B, C, h, w), some of them blurred; edges are reflected."""
        place = torch.arange(-1, 2, device=x_low.device, dtype=x_low.dtype)
        g = (-0.5 * (place / self.sigma) ** 2).exp()
        kernel = torch.outer(g, g) / g.sum() ** 2
        channels = x_low.shape[1]
        weight = kernel.expand(channels, 1, 3, 3)
        soft = F.conv2d(F.pad(x_low, (1, 1, 1, 1), "reflect"), weight, groups=channels)
        chosen = noise.uniform().to(x_low.device) < self.p
        return torch.where(chosen[:, None, None, None], soft, x_low)


class LowResolution(Conditioner):
    """low_res (B, C, h, w), which an upsampler enlarges.

    It is resized bilinearly to x_t's size, half pixels at the edges (`align_corners=False`), and
    joined to x_t along the channels (Nichol & Dhariwal 2021, section 4; ADM, section 5.3; after
    SR3, Saharia et al. 2021). Before, `read` rounds it to 8 bits (GLIDE's code), so that real
    and drawn ones are alike, and adds noise to it if there is an augmentation, whose level s is the
    condition "level". A blur comes before both, in training alone.

    Args:
        augmentation: The noise, or None.
        blur: Of some images of training, or None.
    """

    def __init__(self, augmentation: Augmentation | None = None, blur: Blur | None = None) -> None:
        super().__init__()
        self.augmentation, self.blur = augmentation, blur
        self.keys = self.required = ("low_res",) if augmentation is None else ("low_res", "level")

    def channels(self, image: int) -> int:
        """See `Conditioner`."""
        return image

    def planes(self, x_t: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """See `Conditioner`.

        Raises:
            ValueError: If there is no small picture.
        """
        if "low_res" not in values:
            raise ValueError("low_res: missing; expected small pictures for an upsampler")
        return F.interpolate(values["low_res"].to(x_t.dtype), x_t.shape[2:], mode="bilinear")

    def read(self, batch: Batch, train: bool) -> dict[str, Tensor]:
        """See `Conditioner`."""
        if "low_res" not in batch:
            return {}
        low = batch["low_res"]
        if train and self.blur is not None:
            low = self.blur.train(low, noise_of(batch, low).of(Purpose.BLUR))
        low = scaled(rounded(low))
        if self.augmentation is None:
            return {"low_res": low}
        augment = self.augmentation.train if train else self.augmentation.sample
        z, s = augment(low, noise_of(batch, low).of(Purpose.LEVEL))
        return {"low_res": z, "level": s}

    def resized(self, batch: Batch, size: tuple[int, int]) -> Batch:
        """See `Conditioner`: without the small picture, which is what comes before this size."""
        return {k: v for k, v in batch.items() if k != "low_res"}


class LevelEmbedding(nn.Module):
    """W₂ SiLU(W₁ sinusoidal(s)), which is added to the embedding of the time."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.fc_in, self.fc_out = nn.Linear(dim, width), nn.Linear(width, width)

    def forward(self, s: Tensor) -> Tensor:
        """Maps levels s (B,) to (B, width)."""
        return self.fc_out(F.silu(self.fc_in(sinusoidal(s, self.dim).to(self.fc_in.weight.dtype))))
