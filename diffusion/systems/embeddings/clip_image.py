"""A CLIP's embedding of a picture as what is diffused (DALL-E 2, Ramesh et al. 2022)."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.codec import Codec, vectors_of
from diffusion.common.files import check_writable, written_aside
from diffusion.common.pixels import rounded, scaled
from diffusion.networks.locked import FromFile, Locked
from diffusion.spec import DataSpec
from diffusion.systems.frozen import FrozenClip, TrainedClip

KEY = 16  # bytes of a picture's digest


class FrozenClipImage(Codec):
    """z = √D f(x), f the image tower's unit vector of D numbers; there is no way back.

    f has a length of 1, so its coordinates have a mean square of 1/D, and those of z of 1: with the
    process's unit noise, half of x_t is signal where α_t = σ_t. Nothing is measured for that, and
    the length √D is the same for all pictures. The variance is 1 as well if the vectors have no
    mean in common: of `weights/clip_emoji` on emoji it is 0.9985, of single coordinates 0.50 … 1.66
    (5,519 training pictures). A mean in common would cost variance, and so a part of the schedule.

    z is of the picture's nearest 256 levels, so that those drawn and those read are alike. Each
    picture goes through the tower once, in float32, and is remembered. A checkpoint holds a digest
    of the tower, and not its weights: with another CLIP it is refused.

    Args:
        clip: A CLIP that knows clean pictures.

    Raises:
        ValueError: If it knows noisy pictures only.
    """

    decodes = False

    def __init__(self, clip: FrozenClip) -> None:
        super().__init__()
        if not clip.clean:
            raise ValueError(
                "codec.checkpoint: a CLIP of noisy pictures; expected one that was trained on "
                "clean ones"
            )
        self.tower, self.shape, self.width = Locked(clip.towers.image), clip.shape, clip.width
        self._known: dict[bytes, Tensor] = {}
        self.eval()

    def encode(self, x: Tensor) -> Tensor:
        """Returns z (B, D) in float32."""
        pixels = rounded(x)
        keys = picture_digests(pixels)
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            z = self._embed(scaled(pixels[list(new.values())]))
            self._known.update(zip(new, z.cpu()))
        return torch.stack([self._known[key] for key in keys]).to(x.device)

    @torch.no_grad()
    def _embed(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.autocast(x.device.type, enabled=False):
            t = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            return self.width**0.5 * F.normalize(self.tower(x, t).float(), dim=1)

    def remember(self, pictures: Callable[[], Iterable[Tensor]], path: Path) -> None:
        """See `Codec`."""
        from safetensors.torch import load_file, save_file

        if not path.is_file():
            check_writable(path.parent, "metrics.cache")
            before, self._known = self._known, {}
            for x in pictures():
                self.encode(x)
            keys = np.frombuffer(b"".join(self._known), np.uint8).reshape(-1, KEY)
            z = torch.stack(list(self._known.values()))
            with written_aside(path) as aside:
                save_file({"keys": torch.from_numpy(keys.copy()), "z": z}, aside)
            self._known |= before
        saved = load_file(path)
        self._known.update(zip(map(bytes, saved["keys"].numpy()), saved["z"]))

    def spec(self, data: DataSpec) -> DataSpec:
        """See `Codec`.

        Raises:
            ValueError: If the CLIP is of pictures of another shape.
        """
        return vectors_of(data, self.shape, self.width, "codec.checkpoint")


class ClipImage(FromFile, FrozenClipImage):
    """The pictures' embeddings of a `Contrastive` from its checkpoint, which is read at once.

    Args:
        checkpoint: The file, or an exported folder, such as weights/clip_emoji.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else, or of noisy pictures only.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        super().__init__(TrainedClip(checkpoint, trust))


def picture_digests(pixels: Tensor) -> list[bytes]:
    """Returns `KEY` bytes that tell pictures (B, ...) uint8 apart, of each."""
    rows = pixels.cpu().contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=KEY).digest() for row in rows]
