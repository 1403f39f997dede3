"""The image tower of a trained CLIP, fixed, for captions."""

import torch
from torch import Tensor

from diffusion.networks.base import ImageTower
from diffusion.networks.locked import FromFile, Locked
from diffusion.systems.frozen import TrainedClip

KEY = "model.network.image"


class TrainedTower(FromFile, ImageTower):
    """The image tower of a `Contrastive` from its checkpoint, with the averaged weights.

    It is neither trained nor saved: a checkpoint holds its digest. It must not be the judge of what
    is drawn from the captions, nor have seen captions that are to be kept from the captioner.

    Args:
        checkpoint: The file, or an exported folder.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else, knows noisy pictures only, or gives one vector alone.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        super().__init__()
        clip = TrainedClip(checkpoint, trust)
        image = clip.towers.image
        if not clip.clean or not isinstance(image, ImageTower):
            raise ValueError(
                f"{KEY}.checkpoint: {checkpoint}; expected a CLIP of clean pictures whose tower is "
                "a ClassifierNetwork or a ViT"
            )
        self.tower = Locked(image)
        self.in_channels, self.out_channels = image.in_channels, image.out_channels
        self.image_size, self.fixed, self.factor = image.image_size, image.fixed, image.factor
        self.state_width = image.state_width

    @torch.no_grad()
    def look(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageTower`."""
        image = self.tower.base
        assert isinstance(image, ImageTower)
        return image.look(x_t, t)
