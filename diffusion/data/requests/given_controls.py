"""Controls that are given by hand: a sketch, or a folder of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from diffusion.common.hashing import bytes_digest, file_digest
from diffusion.data.reading.decoding import read_picture, upright_size
from diffusion.data.requests.base import Ask
from diffusion.data.requests.given_pictures import check_square, listed, try_read


class GivenControls(Ask):
    """Sample i has picture i mod N as its control: NAME, float32 (B, c, H, W), v / 255 of bytes v.

    Pictures are read as `ImageFolder` reads them: the shorter side resized, the centre cropped.
    What is white is 1, as in the controls that are computed: edges are white on black. A drawing
    that is dark on white wants `invert`, which makes it 1 − v / 255.

    Args:
        control: A picture, or a folder of N, in the order of their names; by NAME where the data
            has several controls.
        channels: c by NAME.
        shape: (C, H, W) of the data.
        invert: Whether to invert them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a picture cannot be read, or the data has other controls.
    """

    argument = "control"

    def __init__(
        self,
        control: Mapping[str, str] | str,
        channels: Mapping[str, int],
        shape: Sequence[int],
        invert: bool,
    ) -> None:
        check_square("data.control", control, shape)
        if isinstance(control, str):
            given = dict.fromkeys(channels, control) if len(channels) == 1 else {}
        else:
            given = control if control.keys() == channels.keys() else {}
        if not given:
            names = f"a picture for each of {', '.join(channels)}, {{name: file}}"
            wanted = names if channels else "null, as nothing reads controls"
            raise ValueError(f"data.control: {control!r}; expected {wanted}")
        self.keys, self.channels = tuple(channels), channels
        self.size, self.invert = shape[1], invert
        self.pictures = {
            name: listed(Path(file).expanduser(), "data.control") for name, file in given.items()
        }
        for name, paths in self.pictures.items():
            self._say(name, paths)

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the controls of these numbers."""
        return {
            name: torch.stack([self._read(name, paths[i % len(paths)]) for i in numbers])
            for name, paths in self.pictures.items()
        }

    def digest(self) -> str:
        """Returns 16 digits that change with the files, and whether they are inverted."""
        parts = (
            name.encode() + file_digest(path)
            for name, paths in self.pictures.items()
            for path in paths
        )
        return f"{bytes_digest(*parts)}{' inverted' if self.invert else ''}"

    def _read(self, name: str, path: Path) -> Tensor:
        v = (
            try_read(read_picture, "data.control", path, self.size, self.channels[name]).float()
            / 255
        )
        return 1 - v if self.invert else v

    def _say(self, name: str, paths: Sequence[Path]) -> None:
        """Says what becomes of other sizes, and of what may be the wrong way round."""
        sizes = {path: try_read(upright_size, "data.control", path) for path in paths}
        other = [path for path, size in sizes.items() if size != (self.size, self.size)]
        if other:
            width, height = sizes[other[0]]
            count = f", and {len(other) - 1} others of their sizes," if len(other) > 1 else ""
            crop = "its centre is cropped and " if width != height else ""
            rank_zero_info(
                f"data.control: {other[0]} is {width} x {height}{count}; {crop}resized to "
                f"{self.size} x {self.size}"
            )
        if self.channels[name] == 1 and self._read(name, paths[0]).mean() > 0.5:
            rank_zero_warn(
                f"data.control: {paths[0]} is mostly white, and white is where something is; "
                f"data.invert_control: {'false' if self.invert else 'true'} turns it round"
            )
