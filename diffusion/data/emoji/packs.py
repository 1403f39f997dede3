"""Where emoji come from: pinned packages, and the pictures in them."""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from diffusion.common.packages import Package
from diffusion.data.emoji.table import Entry, code_points, from_emojibase, from_scistag

SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'

# Of each style's Iconify pack: name, version, SHA-256.
PINNED = """\
google noto 1.2.9 3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad
twitter twemoji 1.2.5 19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7
microsoft fluent-emoji-flat 1.2.6 7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175
openmoji openmoji 1.2.29 03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5
"""
PACKS = {
    style: Package(f"@iconify-json/{name}", version, sha256, "npm")
    for style, name, version, sha256 in map(str.split, PINNED.splitlines())
}
# Line drawings of the same shapes as openmoji's, on the same ground.
LINES = "lines"
PACKS[LINES] = Package(
    "openmoji",
    "17.0.0",
    "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
    "npm",
)
EMOJIBASE = Package(
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "npm",
)
# Google's pictures once more, as PNG files: for machines with pip alone.
SCISTAG = Package(
    "scistag", "0.9.0", "8b5d02a47200c9492934bbfe1a02167d97f2f385dbd5c77bd5267a9a520ad8ba", "pip"
)


def emojibase(archive: Path) -> dict[str, Entry]:
    """Returns names, groups and keywords of all emoji."""
    data, groups = _json_files(archive, "package/en/data.json", "package/meta/groups.json")
    return from_emojibase(data, groups)


def pack(archive: Path) -> dict[str, str]:
    """Returns an Iconify pack: code points and SVG, on a square ground."""
    chars, icons = _json_files(archive, "package/chars.json", "package/icons.json")
    return {code_points(code): _svg(icons["icons"][name], icons) for code, name in chars.items()}


def black(archive: Path) -> dict[str, str]:
    """Returns OpenMoji's black line drawings: code points and SVG."""
    found = {}
    with tarfile.open(archive) as files:
        for member in files:
            name = re.fullmatch(r"package/black/svg/([\dA-F-]+)\.svg", member.name)
            if name and (file := files.extractfile(member)):
                found[code_points(name[1])] = file.read().decode()
    return found


def scistag(archive: Path) -> tuple[dict[str, Entry], dict[str, bytes]]:
    """Returns scistag's table, and its pictures: code points and PNG files."""
    with zipfile.ZipFile(archive) as wheel:
        inner = wheel.read("scistag/data/scistag_essentials.zip")
    with zipfile.ZipFile(io.BytesIO(inner)) as files:
        table = from_scistag(json.loads(files.read("data/emoji/emoji_db.json")))
        pictures = {}
        for name in files.namelist():
            if found := re.fullmatch(r"images/noto/cpngs/emoji_u(\w+)\.png", name):
                pictures[code_points(found[1].replace("_u", "_"))] = files.read(name)
    return table, pictures


def _svg(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Returns an icon's SVG; a box that is not square is widened on both sides."""
    width, height = (icon.get(key, defaults.get(key, 16)) for key in ("width", "height"))
    left, top = (icon.get(key, defaults.get(key, 0)) for key in ("left", "top"))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    return f'<svg {SPACES} viewBox="{box}">{icon["body"]}</svg>'


def _json_files(archive: Path, *names: str) -> list[Any]:
    """Returns some JSON files of a .tgz archive."""
    with tarfile.open(archive) as files:
        members = [files.extractfile(name) for name in names]
        return [json.load(member) for member in members if member is not None]
