"""What a CLIP knows of a text: the states of its tokens, and its embedding."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.networks.locked import FromFile, Locked
from diffusion.networks.text.base import TextEncoder
from diffusion.systems.frozen import FrozenClip, TrainedClip


class FrozenClipText(TextEncoder):
    """The states of the text tower's tokens and, as the pooled vector, √D g(c) (DALL-E 2, 2.2).

    g is CLIP's unit vector of the text c, of D numbers. Neither is trained; a checkpoint holds a
    digest of the tower, and not its weights: with another CLIP it is refused.

    Args:
        clip: The CLIP.
    """

    values = ("", "_mask", "_pooled")

    def __init__(self, clip: FrozenClip) -> None:
        super().__init__()
        text, projection = clip.towers.text, clip.towers.projection
        self.tower = Locked(nn.ModuleList([text, projection]))
        self._parts = text, projection  # in a tuple, so that they are no second submodules
        self.width, self.pooled_width, self.length = text.width, clip.width, text.length

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns "" (B, L, D'), "_mask" (B, L) bool and "_pooled" (B, D)."""
        text, projection = self._parts
        device = next(projection.parameters()).device
        with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
            read = text({k: v.to(device) for k, v in text.read(texts).items()})
            g = F.normalize(projection(read.pooled).float(), dim=1)
            mask = read.states.new_ones(read.states.shape[:2], dtype=torch.bool)
            mask = mask if read.mask is None else read.mask
        found = (read.states, mask, self.pooled_width**0.5 * g)
        return {name: value.cpu() for name, value in zip(self.values, found)}

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """See `TextEncoder`."""
        return self._parts[0].sizes(texts)

    def forward(self, values: Mapping[str, Tensor]) -> Encoding:
        """See `TextEncoder`."""
        return Encoding(values[""], values["_mask"], values["_pooled"])


class ClipText(FromFile, FrozenClipText):
    """The texts' states and embeddings of a `Contrastive` from its checkpoint, read at once.

    Args:
        checkpoint: As for `ClipImage`.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises what `TrainedNetwork` does.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        super().__init__(TrainedClip(checkpoint, trust))
