"""Pictures that samples continue from, and which of their pixels stay as they are."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.hashing import bytes_digest, file_digest
from diffusion.data.reading.decoding import read_picture, upright_size
from diffusion.data.requests.given_pictures import GivenPictures, try_read

BOX = "a box such as 2,2,6,6"


class Edits(GivenPictures):
    """Sample i continues from picture i mod N; what is to be repainted is the same for all.

    Pictures are read as `GivenPictures` says.

    Args:
        edit: A picture, or a folder of N pictures, which are taken in the order of their names.
        mask: What to repaint: a box "x0,y0,x1,y1" in pixels of the result, x to the right, y
            downwards, x1 and y1 not included; or a picture, white where to repaint, as large as
            those to edit, and read as they are, or as the result. None if nothing has to stay.
        shape: (C, H, W) of the data.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a picture cannot be read, the sizes differ, or nothing is to be repainted.
    """

    argument = "edit"

    def __init__(self, edit: str, mask: str | None, shape: Sequence[int]) -> None:
        super().__init__(edit, shape)
        self.keys = ("known",) if mask is None else ("known", "mask")
        self.mask = mask
        self.known = None if mask is None else ~self._repainted(mask)

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns what the samples of these numbers continue from.

        Returns:
            "known": float32 (B, C, H, W) in [−1, 1]; "mask", if there is one: float32
            (B, 1, H, W), 0 where to repaint and 1 elsewhere.
        """
        batch = super().ask(numbers)
        if self.known is not None:
            batch["mask"] = self.known.float().expand(len(numbers), *self.known.shape)
        return batch

    def digest(self) -> str:
        """Returns 16 digits that change when a pixel does, of the pictures or of the mask."""
        mask = b"" if self.known is None else self.known.numpy().tobytes()
        return bytes_digest(*map(file_digest, self.pictures), mask)

    def _repainted(self, mask: str) -> Tensor:
        """Returns where to repaint, (1, H, W) bool."""
        _, height, width = self.shape
        if re.fullmatch(r"\s*\d+(\s*,\s*\d+){3}\s*", mask):
            x0, y0, x1, y1 = map(int, mask.split(","))
            if x1 > width or y1 > height:
                raise ValueError(
                    f"data.mask: '{mask}'; expected a box x0,y0,x1,y1 inside 0,0,{width},{height}"
                )
            where = torch.zeros(1, height, width, dtype=torch.bool)
            where[:, y0:y1, x0:x1] = True
        else:
            path = Path(mask).expanduser()
            self._check_size(path)
            where = try_read(read_picture, "data.mask", path, width, 1, other=BOX) > 127
        if not where.any():
            raise ValueError(
                f"data.mask: {mask!r} has nothing to repaint; expected a box x0,y0,x1,y1 with "
                "x0 < x1 and y0 < y1, or a picture that is white there"
            )
        return where

    def _check_size(self, mask: Path) -> None:
        """Refuses a mask that would be cropped otherwise than the pictures."""
        size, result = try_read(upright_size, "data.mask", mask, other=BOX), self.shape[:0:-1]
        for path, other in zip(self.pictures, self.sizes):
            if size not in (other, result):
                raise ValueError(
                    f"data.mask: {mask} is {size[0]} x {size[1]}; expected {other[0]} x {other[1]} "
                    f"as {path} is, or {result[0]} x {result[1]} as the samples are"
                )
