"""A swap without training for it: InstantID that draws the face of a picture anew."""

import copy

import torch
from torch import Tensor

from diffusion.codec import Pixels
from diffusion.data.identities.given_poses import GivenPoses
from diffusion.guidance import Inpaint
from diffusion.networks.adapter.instant_id import InstantID
from diffusion.step import RePaint
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.swapping.paste_back import face_mask


class DiffusionSwap:
    """Draws sources' persons in the place of targets' faces, by `Inpaint` and `RePaint`.

    The `InstantID` reads e of the source and the target's five points; what is known is the target
    where `face_mask` is 0, and all else is drawn. Everything besides is as the model draws: its
    grid, step, guidance and strengths.

    Args:
        system: A `Diffusion` with an `InstantID`.
        prompt: A caption, "" for none.
        repeats: Of `RePaint`, so that what is drawn answers to what is around it; 1 for `Inpaint`
            alone.
        grown: How many times larger than a face is what is drawn anew: 1 is the face, without hair.
        seed: Of the noise.

    Raises:
        ValueError: If it is another model, or a number is out of its range.
    """

    def __init__(
        self,
        system: Diffusion,
        prompt: str = "",
        repeats: int = 5,
        grown: float = 1.0,
        seed: int = 0,
    ) -> None:
        network = system.denoiser.network
        if not isinstance(network, InstantID) or not isinstance(system.codec, Pixels):
            kind = type(network).__name__
            raise ValueError(f"network: {kind}; expected an InstantID of pixels, which can swap")
        if not 0 < grown < 100:
            raise ValueError(f"grown: {grown}; expected above 0, 1 for the face without its hair")
        self.network, self.prompt, self.grown = network, prompt, grown
        sampler = copy.copy(system.sampler)
        own = [guide for guide in sampler.guidance if not isinstance(guide, Inpaint)]
        sampler.guidance, sampler.strength = [*own, Inpaint()], 1.0
        sampler.step = RePaint(sampler.step, repeats) if repeats != 1 else sampler.step
        self.system = copy.copy(system)
        self.system.sampler, self.system.seed = sampler, seed

    def masks(self, points: Tensor) -> Tensor:
        """Returns the soft masks, (B, 1, H, W), of targets by their points, (B, 5, 2)."""
        size = self.system.shape[-1]
        return torch.stack([face_mask(size, one, self.grown) for one in points]).to(points.device)

    @torch.no_grad()
    def __call__(
        self, target: Tensor, source: Tensor, points: Tensor, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Returns targets whose face is drawn anew, and the masks under which to paste them.

        Args:
            target: Pictures as the model's data has them, (B, C, H, W) in [−1, 1].
            source: Pictures of the persons, like them.
            points: Both eyes, the nose and both corners of the targets' mouths, in pixels,
                (B, 5, 2).
            first: The number of the first sample, by which its noise is drawn.
        """
        numbers, size = range(len(target)), target.shape[-1]
        mask, shape = self.masks(points), tuple(target.shape[1:])
        pose = GivenPoses(points.float() / size, [self.network.map.name], shape).ask(numbers)
        batch = {
            "known": target,
            "mask": (mask == 0).to(target),
            "text": [self.prompt] * len(target),
            self.network.tokens.name: source,
            **pose,
        }
        drawn = self.system.generate(batch, [first + i for i in numbers])
        return drawn.clamp(-1, 1), mask.to(target)
