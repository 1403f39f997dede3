"""Pictures and small versions of them, for networks that upsample."""

from typing import Any

from diffusion.data.image_folder import ImageFolder
from diffusion.data.requests.small_pictures import LowResolution


class Upsampling(ImageFolder):
    """An `ImageFolder` whose batches also have "low_res", as `LowResolution` says.

    Args:
        low_size: Height and width of the small pictures, a divisor of `size`.
        low_root: The folder of small pictures, or None if nothing is to be drawn.
        **kwargs: As for `ImageFolder`.

    Raises:
        ValueError: The sizes do not divide.
        FileNotFoundError: In `setup`, `low_root` is no folder.
    """

    def __init__(self, low_size: int, low_root: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low = LowResolution(low_size, low_root, self.shape)

    def setup(self, stage: str) -> None:
        """Look at the folder of small pictures too, before anything is trained."""
        super().setup(stage)
        self.low.check()

    @property
    def frequencies(self) -> list[int] | None:
        """None, too, where small pictures are there already, drawn with the classes in turn."""
        return super().frequencies if self.low.root is None else None

    def asked(self) -> dict[str, Any]:
        """See `Images`."""
        return {**super().asked(), **self.low.asked()}

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Add the small pictures."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return self.low.added(batch, self.normalize)
