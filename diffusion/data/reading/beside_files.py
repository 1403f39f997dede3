"""Controls in files beside the pictures: that of `cat.jpg` called NAME is `cat.NAME.png`."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from diffusion.common.validate import first_few
from diffusion.data.reading.decoding import upright_size


def control_file(picture: str, control: str) -> str:
    """Returns the path of a control of a picture."""
    return f"{os.path.splitext(picture)[0]}.{control}.png"


def with_controls(
    names: list[str], controls: Iterable[str], mention: Callable[[str], None]
) -> list[str]:
    """Returns the pictures that have all controls; these are no pictures themselves.

    Args:
        names: Paths of all pictures under a root.
        controls: Their names.
        mention: Called with what is left out.

    Raises:
        FileNotFoundError: If none has.
    """
    endings = tuple(f".{control}.png" for control in controls)
    if not endings:
        return names
    there, pictures = {*names}, [name for name in names if not name.endswith(endings)]
    kept = [name for name in pictures if {control_file(name, x) for x in controls} <= there]
    if not kept:
        raise FileNotFoundError(
            f"data.controls: {', '.join(controls)}; expected files beside the {len(pictures)} "
            f"pictures, such as {' and '.join(control_file('cat.jpg', x) for x in controls)} "
            "beside cat.jpg"
        )
    if left_out := [name for name in pictures if name not in {*kept}]:
        mention(
            f"left out: {len(left_out)} of {len(pictures)} pictures have no "
            f"{' or no '.join(endings)} beside them: {first_few(left_out, 10)}"
        )
    return kept


def check_sizes(root: Path, names: Iterable[str], controls: Iterable[str]) -> None:
    """Refuses controls of another size than their picture, as they would be cropped otherwise.

    Raises:
        ValueError: If there is one.
    """
    for control in controls:
        for name in names:
            file = control_file(name, control)
            size, other = (upright_size(root / path) for path in (name, file))
            if size != other:
                raise ValueError(
                    f"data.controls.{control}: {root / file} is {other[0]} x {other[1]}; expected "
                    f"{size[0]} x {size[1]}, as {os.path.basename(name)} is"
                )
