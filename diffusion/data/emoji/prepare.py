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
    files = {style: _file(root, style, size) for style in styles}
    missing = [path.name for path in files.values() if not path.is_file()]
    if not missing:
        return files
    alone = _file(root, "google", size, alone=True)
    if "google" in styles and alone.is_file():
        return {"google": alone}
    raise FileNotFoundError(
        f"data.root: {root}; expected {missing[0]} of Emoji there: get it with "
        "`download: true` where there is a network, or copy the folder emoji"
    )


def draw_styles(root: Path, styles: Sequence[str], size: int) -> str:
    """Draws the styles that are missing; returns why it is Google's alone, or "" if it is not.

    Raises:
        FileNotFoundError: If something could not be fetched or drawn.
    """
    missing = [style for style in styles if not _file(root, style, size).is_file()]
    try:
        if missing:
            _draw_packs(root, missing, size)
        return ""
    except FileNotFoundError as error:
        if "google" not in styles:
            raise
        reason = str(error)
    alone = _file(root, "google", size, alone=True)
    if not alone.is_file():
        try:
            table, pictures = scistag(obtain(SCISTAG, root / "packages"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{reason}; {error}") from None
        bake(alone, "google", size, pictures, table)
    return f"; {reason}"


def _draw_packs(root: Path, styles: Sequence[str], size: int) -> None:
    if find_spec("resvg_py") is None:
        raise FileNotFoundError(
            "resvg-py, which draws the SVG files, is not installed; "
            "pip install 'diffusion-template[emoji]'"
        )
    archives = {style: obtain(PACKS[style], root / "packages") for style in styles}
    table = emojibase(obtain(EMOJIBASE, root / "packages"))
    for style, archive in archives.items():
        bake(_file(root, style, size), style, size, pack(archive), table)


def _file(root: Path, style: str, size: int, alone: bool = False) -> Path:
    return cache_path(root, style, size, [SCISTAG] if alone else [PACKS[style], EMOJIBASE])
