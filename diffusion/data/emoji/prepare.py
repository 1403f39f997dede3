"""Getting the packages and drawing the pictures in them, once."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from diffusion.common.packages import obtain
from diffusion.data.emoji.cache import bake, cache_path
from diffusion.data.emoji.packs import EMOJIBASE, PACKS, SCISTAG, emojibase, pack, scistag


def drawn_styles(root: Path, styles: Sequence[str], size: int) -> dict[str, Path]:
    """Returns the files of the styles: all of them, or Google's alone.

    Raises:
        FileNotFoundError: If neither has been drawn.
    """
    paths = {style: _path(root, style, size) for style in styles}
    missing = [style for style in styles if not paths[style].is_file()]
    if not missing:
        return paths
    alone = _path_alone(root, size)
    if "google" in styles and alone.is_file():
        return {"google": alone}
    raise FileNotFoundError(
        f"data.root: {root}; expected {paths[missing[0]].name} of Emoji there: get it with "
        "`download: true` where there is a network, or copy the folder emoji"
    )


def draw_styles(root: Path, styles: Sequence[str], size: int) -> str:
    """Draws the styles that are missing; returns why it is Google's alone, or "" if it is not.

    Raises:
        FileNotFoundError: If something could not be fetched or drawn.
    """
    missing = [style for style in styles if not _path(root, style, size).is_file()]
    if not missing:
        return ""
    try:
        _draw_packs(root, missing, size)
    except FileNotFoundError as error:
        if "google" not in styles:
            raise
        if not _path_alone(root, size).is_file():
            _draw_alone(root, size, str(error))
        return f"; {error}"
    return ""


def _draw_packs(root: Path, styles: Sequence[str], size: int) -> None:
    if find_spec("resvg_py") is None:
        raise FileNotFoundError(
            "resvg-py, which draws the SVG files, is not installed; "
            "pip install 'diffusion-template[emoji]'"
        )
    archives = {style: obtain(PACKS[style], root / "packages") for style in styles}
    table = emojibase(obtain(EMOJIBASE, root / "packages"))
    for style, archive in archives.items():
        bake(_path(root, style, size), style, size, pack(archive), table)


def _draw_alone(root: Path, size: int, reason: str) -> None:
    try:
        table, pictures = scistag(obtain(SCISTAG, root / "packages"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{reason}; {error}") from None
    bake(_path_alone(root, size), "google", size, pictures, table)


def _path(root: Path, style: str, size: int) -> Path:
    return cache_path(root, style, size, [PACKS[style], EMOJIBASE])


def _path_alone(root: Path, size: int) -> Path:
    return cache_path(root, "google", size, [SCISTAG])
