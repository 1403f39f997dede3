"""A picture's two latents (DALL-E 2, Ramesh et al. 2022, section 3): what z says, and x_T the rest.

z is the embedding that the network reads, if it reads one; x_T is where DDIM's ODE leads to from
the picture, given z, and all that z does not say. Back from both comes the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.codec import Codec, Pixels
from diffusion.common.files import kept
from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import rounded, scaled
from diffusion.condition import Condition
from diffusion.data.reading.decoding import read_picture
from diffusion.data.requests.given_pictures import try_read
from diffusion.guidance import ClassifierFree
from diffusion.networks import image_embeddings
from diffusion.plots.captioned import captioned
from diffusion.plots.pictures import save
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.diffusion import Diffusion, evaluating


@dataclass(frozen=True)
class Latents:
    """Of B pictures: x_T (B, C, H, W), and z (B, D) or None."""

    x_T: Tensor
    z: Tensor | None


class Embedded:
    """A trained model, and the way from pictures to their latents and back.

    Args:
        ckpt_path: Its checkpoint, or an exported folder.
        prompt: The text that is given beside z; "" for none.
        steps: Of DDIM, there and back.
        trust: Whether you made it, so that all the classes it names may be made.
        wants_z: Whether a model without an `ImageEmbedding` is refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none that draws pictures, or has no embedding.
    """

    def __init__(
        self, ckpt_path: str, prompt: str, steps: int, trust: bool, wants_z: bool = True
    ) -> None:
        path = Path(ckpt_path).expanduser()
        system = Restorable.load_from_checkpoint(path, trust=trust, key="ckpt_path")
        if not isinstance(system, Diffusion) or not isinstance(system.codec, Pixels):
            raise ValueError(f"ckpt_path: {path}; expected a Diffusion model of pictures")
        self.system, self.prompt = system.eval(), prompt
        self.sampler = Sampler(DDIM(eta=0.0), steps)
        self.sampler.begin(system.process)
        if wants_z and self.codec is None:
            raise ValueError(
                f"ckpt_path: {path}; expected a network that reads an ImageEmbedding, such as that "
                "of dalle2_decoder_emoji.yaml"
            )

    @cached_property
    def _reads(self) -> tuple[str, Codec] | None:
        """The condition that is z, and what makes it of a picture."""
        found = image_embeddings(self.system.denoiser.contract.conditioners)
        return next(((name, one.codec) for name, one in found.items()), None)

    @property
    def codec(self) -> Codec | None:
        """What makes z of a picture."""
        return None if self._reads is None else self._reads[1]

    def read(self, pictures: Sequence[str]) -> Tensor:
        """Returns picture files as the model's data has them, (B, C, H, W) in [−1, 1]."""
        channels, size = self.system.shape[0], self.system.shape[-1]
        paths = [Path(one).expanduser() for one in pictures]
        read = [
            try_read(read_picture, "pictures", path, size, channels, other="") for path in paths
        ]
        return scaled(torch.stack(read))

    def condition(self, batch: int, z: Tensor | None) -> Condition:
        """Returns what B samples are conditioned on."""
        given: dict[str, object] = {"text": [self.prompt] * batch}
        if self._reads is not None and z is not None:
            given[self._reads[0]] = z
        return self.system.network_condition(given)

    @torch.no_grad()
    def invert(self, x_0: Tensor) -> Latents:
        """Returns the latents of pictures, see `Sampler.encode`."""
        z, system = None if self.codec is None else self.codec.encode(x_0), self.system
        cond = self.condition(len(x_0), z)
        with evaluating(system.denoiser):
            return Latents(self.sampler.encode(system.denoiser, system.process, x_0, cond), z)

    def draw(self, latents: Latents, scale: float = 1.0) -> Tensor:
        """Returns the pictures of latents by DDIM, with classifier-free guidance if scale is not 1.

        Raises:
            ValueError: If the scale is not finite.
        """
        system, guidance = self.system, [] if scale == 1 else [ClassifierFree(scale)]
        sampler = Sampler(self.sampler.step, self.sampler.steps, guidance)
        cond = self.condition(len(latents.x_T), latents.z)
        with evaluating(system.denoiser):
            return sampler(system.denoiser, system.process, latents.x_T, cond)

    def sheet(
        self, images: Tensor, texts: Sequence[str], columns: int, output: str, scale: float
    ) -> Path:
        """Writes a page of pictures drawn at a scale, and returns its path; it says how.

        One that is there is renamed.
        """
        path = Path(output).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "sampler": f"DDIM, {self.sampler.steps} steps, classifier-free scale {scale:g}",
            "weights": weights_digest(self.system.denoiser.network.state_dict()),
            "prompt": self.prompt,
        }
        with kept(path) as aside:
            save(captioned(images, texts, columns), aside, about)
        return path

    def between(self, a: Latents, b: Latents, weights: Tensor) -> Latents:
        """Returns slerp of both latents at weights (N,), those of one picture each: N latents."""
        assert a.z is not None
        assert b.z is not None
        return Latents(slerp(a.x_T, b.x_T, weights), slerp(a.z, b.z, weights))


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Returns (sin((1 − w) φ) a + sin(w φ) b) / sin φ, φ the angle between a and b (Shoemake 1985).

    Args:
        a: At w = 0, (1, ...) or (N, ...).
        b: At w = 1, like a.
        weights: w, (N,).

    Raises:
        ValueError: If a and b point in opposite directions, between which there is no one way.
    """
    n = len(weights)
    flat_a, flat_b = (x.flatten(1).double().expand(n, -1) for x in (a, b))
    phi = F.cosine_similarity(flat_a, flat_b).clamp(-1, 1).acos()
    if (phi > math.pi - 1e-3).any():
        raise ValueError("slerp: opposite directions; expected some that are less than π apart")
    w, phi = weights.to(flat_a)[:, None], phi[:, None]
    near = phi < 1e-4
    sin = torch.where(near, torch.ones_like(phi), phi.sin())
    first = torch.where(near, 1 - w, ((1 - w) * phi).sin() / sin)
    second = torch.where(near, w, (w * phi).sin() / sin)
    return (first * flat_a + second * flat_b).to(a.dtype).reshape(n, *a.shape[1:])


def truncated(z: Tensor, among: Tensor, k: int) -> Tensor:
    """Returns √D (m + P_k P_kᵀ (z − m)) / |…|, P_k the first k principal directions, m the mean.

    Args:
        z: (B, D), of length √D.
        among: (N, D), whose mean and directions they are.
        k: How many, 1 … D; of fewer than D pictures' directions all are taken at most.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    if len(among) < 2:
        raise ValueError(f"folder: {len(among)} picture; expected at least two, with directions")
    m = among.mean(0)
    _, _, directions = torch.linalg.svd((among - m).double(), full_matrices=False)
    P = directions[:k].to(z)
    kept_part = m + (z - m) @ P.T @ P
    return z.shape[1] ** 0.5 * F.normalize(kept_part)


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Returns the RMSE of pictures (B, ...) in levels of 255, (B,), as 8 bits show them."""
    levels = rounded(a).float() - rounded(b).float()
    return levels.flatten(1).square().mean(1).sqrt()
