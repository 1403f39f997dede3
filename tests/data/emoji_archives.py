"""Tiny archives in the form of the emoji packages."""

import hashlib
import io
import json
import tarfile
import zipfile

from PIL import Image

from diffusion.common.packages import Package

GROUPS = {"subgroups": {"0": "face-smiling", "1": "person-role", "2": "food-fruit", "3": "flag"}}
LIGHT_AND_DARK = ("1F3FB", "1F3FF")
HALF = '<path fill="#f00" d="M0 0h16v32H0z"/>'  # red on the left, nothing on the right


def codes_of(concepts):
    """The code points of concepts, and of those with skin tones in two of these."""
    codes = [code for code, *_ in concepts]
    return codes + [
        f"{code}-{tone}" for code, _, _, toned in concepts if toned for tone in LIGHT_AND_DARK
    ]


def emojibase(concepts):
    """data.json: (code, name, subgroup, whether it has two skin tones)."""
    data = []
    for code, name, subgroup, toned in concepts:
        one = {"hexcode": code, "label": name, "subgroup": subgroup, "tags": ["tag", ":)", name]}
        if toned:
            tones = zip(LIGHT_AND_DARK, (1, 5))
            one["skins"] = [{"hexcode": f"{code}-{tone}", "tone": n} for tone, n in tones]
        data.append(one)
    return data


def npm(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            packed = (content if isinstance(content, str) else json.dumps(content)).encode()
            about = tarfile.TarInfo(f"package/{name}")
            about.size = len(packed)
            archive.addfile(about, io.BytesIO(packed))
    return Package(path.name[:-8], "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "npm")


def pack(path, svgs):
    chars = {code: f"icon {code}" for code in svgs}
    icons = {f"icon {code}": svg for code, svg in svgs.items()}
    return npm(
        path, {"chars.json": chars, "icons.json": {"icons": icons, "width": 32, "height": 32}}
    )


def scistag(path, names, colour):
    """A wheel whose pictures are squares of a colour on a 136×128 ground."""
    inner, png = io.BytesIO(), io.BytesIO()
    picture = Image.new("RGBA", (136, 128))
    picture.paste(colour, (4, 0, 132, 128))
    picture.save(png, "png")
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("data/emoji/emoji_db.json", json.dumps(names))
        for code in names:
            code = "_".join(part for part in code.lower().split("_") if part != "fe0f")
            file.writestr(f"images/noto/cpngs/emoji_u{code}.png", png.getvalue())
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("scistag/data/scistag_essentials.zip", inner.getvalue())
    return Package("scistag", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "pip")
